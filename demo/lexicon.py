"""The words of the stories: people, animals, things and places, and what goes with each.

A table has a line of column names and then one row a line, columns separated by ` / `. A column
may hold a template of `corpus.py`; it is told once, when the row is drawn, and stays a fact.
"""

# Irregular verbs: the past and, where it is irregular too, the third person of the present.
VERBS = {
    "be": "was is", "beat": "beat", "become": "became", "begin": "began", "break": "broke",
    "bring": "brought", "build": "built", "buy": "bought", "can": "could can", "catch": "caught",
    "choose": "chose", "come": "came", "cost": "cost", "cut": "cut", "dare": "dared",
    "dig": "dug", "do": "did does", "draw": "drew", "drive": "drove", "eat": "ate",
    "fall": "fell", "feed": "fed", "feel": "felt", "find": "found", "flee": "fled", "fly": "flew",
    "forget": "forgot", "get": "got", "give": "gave", "go": "went goes", "grow": "grew",
    "hang": "hung", "have": "had has", "hear": "heard", "hide": "hid", "hold": "held",
    "hurt": "hurt", "keep": "kept", "kneel": "knelt", "know": "knew", "lead": "led",
    "leave": "left", "let": "let", "lie": "lay", "lose": "lost", "make": "made", "mean": "meant",
    "meet": "met", "put": "put", "read": "read", "ride": "rode", "ring": "rang", "rise": "rose",
    "run": "ran", "say": "said", "see": "saw", "send": "sent", "set": "set", "shake": "shook",
    "shine": "shone", "shut": "shut", "sing": "sang", "sink": "sank", "sit": "sat",
    "sleep": "slept", "slide": "slid", "speak": "spoke", "spread": "spread", "stand": "stood",
    "strike": "struck", "sweep": "swept", "swim": "swam", "swing": "swung", "take": "took",
    "teach": "taught", "tear": "tore", "tell": "told", "think": "thought", "throw": "threw",
    "understand": "understood", "wake": "woke", "wear": "wore", "weave": "wove", "weep": "wept",
    "will": "would will", "write": "wrote",
}  # fmt: skip

TABLES = {
    "sex": """
sex / he / him / his / kind / elder / parent / grown
he / he / him / his / boy / grandfather / father / man
she / she / her / her / girl / grandmother / mother / woman
""",
    # ------------------------------------------------------------ who
    "child": """
name / sex
Mia / she
Nora / she
Lily / she
Ruby / she
Clara / she
Elsie / she
Hazel / she
Ivy / she
Maya / she
Poppy / she
Rosa / she
Tess / she
Zoe / she
Anna / she
Bella / she
Freya / she
Greta / she
June / she
Kira / she
Lena / she
Marta / she
Nell / she
Olive / she
Sadie / she
Amina / she
Yuki / she
Ben / he
Tom / he
Leo / he
Max / he
Finn / he
Oscar / he
Theo / he
Hugo / he
Jack / he
Sam / he
Noah / he
Eli / he
Felix / he
Otto / he
Jonas / he
Milo / he
Arlo / he
Emil / he
Henry / he
Ivan / he
Jasper / he
Kofi / he
Luca / he
Omar / he
Toby / he
""",
    "animal": """
name / sex
Pip / he
Bramble / he
Bruno / he
Nutkin / he
Rusty / he
Thistle / he
Barley / he
Pepper / he
Moss / he
Digby / he
Tumble / he
Clover / she
Tilda / she
Willow / she
Juniper / she
Dot / she
Mabel / she
Fern / she
Maple / she
Primrose / she
Snowdrop / she
Bonnie / she
""",
    "beast": """
kind
fox
rabbit
hedgehog
mouse
badger
otter
squirrel
bear
mole
beaver
hare
raccoon
""",
    "elder": """
name / sex
Abel / he
Jacob / he
Matthias / he
Joseph / he
Samuel / he
Tobias / he
Simon / he
Martha / she
Hannah / she
Esther / she
Ingrid / she
Ruth / she
Miriam / she
Sophia / she
""",
    "trait": """
name / noun
curious / curiosity
shy / quiet heart
brave / courage
careful / patience
cheerful / good cheer
dreamy / imagination
stubborn / stubborn heart
quiet / quiet courage
clever / quick mind
gentle / gentle heart
hopeful / hope
patient / patience
""",
    "maker": """
name / sex
Victor / he
Victor / he
Victor / he
Edmund / he
Albert / he
Conrad / he
Gustav / he
Ambrose / he
Leopold / he
Marcus / he
Rufus / he
Silas / he
Walter / he
Arthur / he
Edwin / he
Magnus / he
Julian / he
Henrik / he
Anton / he
Elias / he
Nathaniel / he
Agnes / she
Beatrice / she
Matilda / she
Eleanor / she
Harriet / she
Josephine / she
Cecilia / she
Rosalind / she
Theodora / she
Wilhelmina / she
Marie / she
Lydia / she
Florence / she
Edith / she
Irene / she
Vera / she
Ada / she
Mary / she
Johanna / she
""",
    "surname": """
surname
Frankenstein
Frankenstein
Winter
Ashford
Bell
Blackwood
Crane
Delmar
Fairweather
Finch
Glass
Hartwell
Holloway
Kessler
Lark
Merriweather
Nightingale
Oakley
Pemberton
Quill
Ravenhill
Sorensen
Stone
Tanner
Thorne
Underhill
Vance
Weaver
Whitlock
Zimmer
Marlow
Penrose
Sparrow
Tinker
Falk
Brandt
Castle
Novak
Silverman
Hawthorn
""",
    "craft": """
craft
scientist
scientist
scientist
scientist
scientist
scientist
inventor
inventor
student
doctor
clockmaker
professor
gardener
toymaker
engineer
chemist
watchmaker
astronomer
""",
    "age": """
age
young
young
young
young
young
young
young
lonely
brilliant
patient
restless
stubborn
quiet
clever
gentle
proud
curious
forgetful
tireless
""",
    "creature": """
name / kind / hand / hands
creature / creature / hand / hands
creature / creature / hand / hands
creature / creature / hand / hands
creature / creature / hand / hands
creature / strange creature / hand / hands
creature / tall creature / hand / hands
creature / gentle creature / hand / hands
giant / giant / hand / hands
giant / gentle giant / hand / hands
robot / robot / hand / hands
automaton / automaton / hand / hands
machine / walking machine / hand / hands
puppet / tall puppet / hand / hands
scarecrow / scarecrow / hand / hands
doll / great doll / hand / hands
bear / mechanical bear / paw / paws
lion / clockwork lion / paw / paws
ape / clockwork ape / hand / hands
""",
    "nickname": """
name
Tock
Patch
Rivet
Ember
Button
Copper
Lantern
Echo
Bolt
Whistle
Acorn
Drum
Marble
Feather
Pocket
Cricket
""",
    "frame": """
name / adj / short
copper pipes / copper / copper pipes
copper wire / copper / wire
old clock springs / wire / springs
broken umbrellas / thin wire / umbrellas
the legs of old chairs / wooden / chair legs
brass bed rails / brass / brass rails
driftwood / wooden / driftwood
silver organ pipes / silver / organ pipes
tin cans / tin / tin cans
willow branches / willow / branches
iron stove doors / iron / stove doors
bicycle wheels / steel / wheels
broken violins / wooden / violins
rusty gate hinges / iron / hinges
fishing rods / thin wooden / fishing rods
old ladders / wooden / ladders
old bones of brass / brass / brass bones
""",
    "skin": """
name / adj
old coats / patchwork
velvet curtains / velvet
leather gloves / leather
sailcloth / canvas
patchwork quilts / patchwork
potato sacks / rough
silk kites / silk
woolen blankets / woolen
faded flags / patchwork
paper maps / paper
circus tents / striped
wedding dresses / white silk
old boots / leather
forgotten scarves / woolen
flour sacks / rough
""",
    "heart": """
name / the / does / sound
a music box / the music box / play a slow tune / soft tune
a brass clock / the brass clock / tick like a small clear heart / ticking
a silver watch / the silver watch / tick very softly / soft ticking
a glass lamp / the glass lamp / glow like a coal / faint hiss
a small bell / the small bell / ring clear and bright / clear ringing
a blue seashell / the blue seashell / whisper like the sea / soft whisper
an old kettle / the old kettle / sing a low song / low song
a coil of golden wire / the golden wire / hum like a bee / gentle hum
a jar of fireflies / the jar of fireflies / flicker and shine / tiny humming
a red ruby / the red ruby / shine like a sunset / deep hum
a tin drum / the tin drum / beat slowly and then faster / steady beat
""",
    "eyes": """
name
green
amber
blue
golden
silver
gray
violet
yellow
""",
    "lab": """
name / where / door
tower / a stone tower above the sea / the tower door
tower / a crooked tower on the hill / the tower door
workshop / a dusty workshop behind the market / the workshop door
workshop / a small workshop under a tin roof / the workshop door
laboratory / a cold laboratory at the edge of town / the laboratory door
laboratory / a laboratory full of bottles and wires / the laboratory door
attic / an attic above the bakery / the attic door
cellar / a cellar under the old school / the cellar door
barn / a drafty barn beyond the orchard / the barn door
greenhouse / a greenhouse with broken windows / the greenhouse door
mill / an empty mill by the river / the mill door
observatory / an observatory among the pines / the observatory door
""",
    "town": """
name
Elmbrook
Stonebridge
Harborlight
Willowdale
Northwick
Applecross
Larkhill
Fernhollow
Greywater
Maplewood
Saltmarsh
Amberfield
Pinevale
Oldcastle
Brightwater
Windmere
""",
    # ------------------------------------------------------------ what happens: the creatures
    "danger": """
name / news / peril / deed / thanks
flood / the river ~break its banks and ~pour into the streets
  / {k} ~be trapped on the roof of the schoolhouse, and the water ~keep rising
  / the {c} ~wade through the flood, ~lift {k} onto its shoulders, and ~carry {k.him} to dry ground
  / It did not run from the water
fire / a fire ~start in the bakery and ~climb toward the sky
  / {k} ~be at the highest window, and no ladder ~be long enough
  / the {c} ~stand below the window, ~spread its arms, and ~catch {k} as gently as a pillow
  / It did not run from the fire
bridge / the old bridge ~crack in the spring wind
  / {k} ~be hanging from the last plank, high above the stream
  / the {c} ~lie down across the gap, and {k} ~crawl to safety along its back
  / It made itself into a bridge
snow / a great snow ~fall from the mountain and ~cover the road
  / {k} ~be somewhere under the snow, and no one ~know where to dig
  / the {c} ~listen with its ear to the ground, ~dig with both {c.hands}, and ~lift {k} into the
  light
  / It dug when our hands were frozen
fog / a thick fog ~come down over the marsh
  / {k} ~have not come home, and every lantern ~fade in the gray air
  / the {c} ~walk into the fog, ~follow the sound of crying, and ~carry {k} home before dawn
  / It walked where we were afraid to walk
storm / a storm ~put out the lighthouse, and the fishing boats ~can not find the harbor
  / {k} ~be out there in the smallest boat, and the rocks ^be very near
  / the {c} ~climb the lighthouse, ~lift a burning lamp in its {c.hand}, and ~hold it until every
  boat ~be safe
  / It held up the light all night
""",
    "wonder": """
name / there / sight / lesson
the sea / at the edge of the sea
  / The waves ^come and ^go, and the whole water ~shine like silver cloth
  / the sea always comes back to the shore
the snow / on the first white hill
  / Snow ~cover every stone, and the whole world ~become quiet
  / under the snow the flowers are only asleep
the stars / on the highest hill
  / The sky ~be so full of stars that the dark ~can hardly find a place
  / even the farthest light belongs to somebody
the circus / beside the striped tent of the circus
  / Horses ^dance, trumpets ^ring, and children ^laugh in the golden light
  / a strange shape can make people happy
the forest / under the tallest trees of the forest
  / Birds ^call to each other, and green light ~fall on everything
  / every tree was once a small and lonely seed
the sunrise / on the cold roof of the world
  / The sun ~climb out of the mist and ~turn every window to gold
  / a new day is given to everyone, even to those who are made
""",
    "lack": """
name / try / fail / trick / result
laugh / {m} ~tell it jokes from a thick red book
  / The {c} ~listen politely and ~ask what ~be funny
  / ~slip on a wet leaf, ~sit down in a puddle, and ~begin to giggle
  / A strange sound ~bubble up inside the {c}, and soon both of them ^laugh until they ^be out of
  breath
sleep / {m} ~make it a bed of straw and ~draw the curtains
  / The {c} ~lie on its back and ~count the cracks in the ceiling until morning
  / ~sit down beside the bed and ~tell a long story about a sheep who ~be afraid of stairs
  / Before the sheep ~reach the last stair, the {c} ~close its {eyes} eyes and ~sleep
sing / {m} ~play scales on an old piano
  / The {c} ~open its mouth, and only a rusty squeak ~come out
  / ~hum a lullaby, and ~ask the {c} to hum the sound of its own heart
  / The {heart.sound} inside its chest ~rise like a melody, and the {c} ~sing for the first time
dream / {m} ~read it tales of ships and dragons every evening
  / In the morning the {c} ~say that the night ~have been empty
  / ~bring a pillow, and ~ask the {c} what it ~want most in the whole world
  / That night the {c} ~dream of a green hill with a friend on it
cry / {m} ~show it onions and sad paintings
  / The {c} ~look at them kindly, and its eyes ^stay dry
  / ~carry in a small bird with a broken wing, and ~ask the {c} to hold it
  / The {c} ~feel the tiny heart beating in its {c.hand}, and one bright tear ~roll down its cheek
dance / {m} ~draw white footprints on the floor
  / The {c} ~step on every footprint and ~fall over the stove
  / ~take the {c} by the {c.hand} and ~tell it to forget its feet
  / The {c} ~turn, and ~turn again, and for the first time it ~do not count its steps
""",
    "task": """
name / full / order / excess / damage / cure
water / to water the gardens of {town} / "Water everything," {m} ~say
  / The {c} ~water the roses, the street, the cats, and the mayor
  / Soon there ~be a pond where the market ~have been / ask each plant about its thirst
clean / to clean the houses of {town} / "Put everything away," {m} ~say
  / The {c} ~put away the plates, the chairs, the doors, and a sleeping uncle
  / Soon nobody ~can find a spoon or a bed / ask people about their wishes
bake / to bake bread for {town} / "Bake as much as you can," {m} ~say
  / The {c} ~bake bread all day, all night, and all the next day
  / Soon the streets ^be full of warm loaves, and nobody ~can open a door
  / count the hungry people first
bell / to ring the bell of {town} / "Ring it when something important happens," {m} ~say
  / The {c} ~ring it for a sneeze, for a butterfly, and for every falling leaf
  / Soon nobody in {town} ~can sleep / wait for the important things
knit / to knit warm clothes for {town} / "Let nobody be cold," {m} ~say
  / The {c} ~knit hats for the children, for the lamp posts, and for the town hall
  / Soon there ~be not one thread of wool left, and the sheep ^hide in the hills
  / look for the coldest ears first
paint / to paint the fences of {town} / "Make everything bright," {m} ~say
  / The {c} ~paint the fences, the windows, the geese, and a priest in a deck chair
  / Soon everyone in {town} ~be yellow / ask about the right color
""",
    # ------------------------------------------------------------ what happens: everyday life
    "toy": """
name / full / from
whistle / a silver whistle on a blue string / a gift from an uncle at sea
kite / a red kite with a long tail / made of paper and patience
compass / a little compass with a cracked glass / carried by an explorer long ago
ball / a yellow ball with a white star / a present from a cousin far away
boat / a wooden boat with a green sail / carved during a long winter
flute / a reed flute with six holes / the only flute in the valley
lantern / a tiny lantern with red windows / won at the summer fair
drum / a small drum with golden cords / bought with birthday money
""",
    "keepsake": """
name / full / from
key / a small brass key / the key to a box of old letters
scarf / a striped scarf of soft wool / knitted by a kind aunt
locket / a round locket with a picture inside / older than the house
hat / a blue hat with a feather / worn on every birthday
""",
    "spot": """
name / where / trouble / kind / skill / deed
tree / at the very top of the old elm / The branches up there ^be as thin as straws
  / squirrel / born to climb
  / ~run up the trunk, ~nudge the {thing} loose, and ~let it fall into the soft grass
pond / at the bottom of the mill pond / The water ~be cold, and much too deep
  / otter / a fine swimmer / ~dive once, ~dive twice, and ~come up with the {thing} between two paws
well / down in the dry well / The well ~be deep, and its stones ^be slippery
  / frog / used to wells / ~hop from stone to stone and ~tie a string around the {thing}
attic / behind the wall of the attic / The hole in the wall ~be no wider than a thumb
  / mouse / small enough for any hole / ~slip through the hole and ~push the {thing} out, bit by bit
roof / on the roof of the church / No ladder in the village ~reach so high
  / crow / at home in the wind / ~fly up, ~take the {thing} in a careful beak, and ~bring it down
ground / deep under the rose bed / The earth ~be hard, and full of roots
  / mole / the best digger for miles / ~dig a neat tunnel and ~roll the {thing} into the light
thorns / in the middle of the thorn bushes / The thorns ^be long, and sharper than pins
  / hedgehog / not afraid of thorns / ~walk under the thorns and ~drag the {thing} out
cave / in the darkest corner of the cave / It ~be too dark in there to see a nose in front of a face
  / bat / glad of the dark / ~fly into the dark and ~come back with the {thing}
""",
    "fear": """
name / scene / call / face / truth / proud
the dark / Every evening, when the lamp ~go out, {hero} ~pull the blanket up to {hero.his} nose
  / the lantern of little {small} ~go out, and {small} ~call for help from the dark garden
  / ~step into the dark garden without a lamp and ~follow the voice
  / The dark ~be full of small friendly sounds, and above it ^hang ten thousand stars
  / the dark is where the stars live
deep water / When the others ^jump into the lake, {hero} ~stay on the warm stones and ~count clouds
  / a wind ~push little {small} far out on the lake in a leaking tub
  / ~walk into the lake, first to the knees, then to the chin, and then ~swim
  / The water ~hold {hero} up like a big cool pillow, and soon the tub ~be back on the sand
  / the water carries you if you let it
thunder / When thunder ~roll over the roof, {hero} ~hide under the table
  / a storm ~catch little {small} in the open field
  / ~run out under the black clouds and ~bring {small} home
  / With each flash the storm ~be farther away, until it ~be only a grumble behind the hills
  / thunder is only the sky clearing its throat
high places / When the path ~lead along the cliff, {hero} ~crawl on all fours
  / little {small} ~climb the old watchtower and ~do not dare to come down
  / ~climb the tower, one step after another, without looking down
  / From the top {hero} and {small} ~can see the whole valley, as green and neat as a quilt
  / the view is worth the stairs
speaking aloud / When the teacher ~ask a question, {hero} ~know the answer and ~say nothing
  / little {small} ~have to read a poem at the summer feast, and suddenly {small.his} voice ~be gone
  / ~stand up in front of everyone and ~read the poem for {small}
  / The first word ~be very small, but the last one ~reach the back of the square
  / a small voice can fill a big place
big dogs / When the baker's dog ~bark, {hero} ~walk the long way around the square
  / the ball of little {small} ~roll right between the paws of the baker's dog
  / ~walk up to the dog and ~stand as still as a post
  / The dog ~sniff, ~wag its tail, and ~push the ball over with its nose
  / a loud bark can hide a soft heart
""",
    "quarrel": """
name / plan / fight / harm / mend
kite / build the biggest kite in the valley / one of them ~want a red kite, and the other ~want a
  blue one
  / each of them ~pull, and the paper ~tear down the middle
  / They ^glue the two halves together with a purple seam, and the kite ~fly higher than the
  swallows
raft / build a raft and sail down the stream / each of them ~want to be captain
  / nobody ~hold the rope, and the raft ~drift away and ~break on the stones
  / They ^find the planks along the stream, ^build a new raft, and ^take turns as captain
cake / bake a cake for the fair / one of them ~want nuts, and the other ~want honey
  / They ^shout so long that the cake ~burn as black as coal
  / They ^bake again, with nuts below and honey on top, and it ~be the best cake at the fair
house / build a tree house in the old oak / each of them ~want the room with the window
  / in the quarrel somebody ~kick the ladder, and the floor ~crack
  / They ^mend the floor and ^cut a second window, one for each of them
song / sing together at the harvest feast / each of them ~want to sing the highest part
  / They ^sing louder and louder, until both of them ^be hoarse
  / They ^practice softly, one high and one low, and even the geese ^stop to listen
garden / grow a garden behind the shed / one of them ~want beans, and the other ~want flowers
  / They ^pull up each other's plants, until there ~be only mud
  / They ^plant beans that ^climb the sunflowers, and by August the garden ~be a green tower
""",
    "patient": """
name / hurt / care / back / favor
swan / a torn wing / ~wrap the wing in clean linen
  / the ferry rope ~break, and {hero} ~drift out on the wide lake
  / The swan ~take the rope in its beak and ~pull the boat to the shore
fox cub / a thorn in its paw / ~draw the thorn out and ~wash the paw
  / {hero} ~lose the way in the autumn woods
  / The fox cub ~appear between the trees and ~lead {hero} along a secret path to the road
crow / a broken leg / ~make a splint from two matches
  / {hero} ~drop the key of the house through the ice
  / The crow ~find a thin place, ~reach down with its long beak, and ~lift the key out
foal / a cut knee / ~clean the knee with warm water
  / snow ~block the road, and {hero} ~have medicine to carry to the next village
  / The foal ~be strong by then, and it ~carry {hero} through the drifts
owl / a sore eye / ~wash the eye with tea
  / {hero}'s lamp ~go out in the old mine
  / The owl ~call softly from the entrance, again and again, until {hero} ~find the way out
goose / a thread around its foot / ~cut the thread with great care
  / a thick fog ~catch {hero} in the middle of the marsh
  / The goose ~call from above, again and again, and ~show {hero} the way to the road
""",
    "contest": """
name / make / rival / trouble / idea / result
boat race / a boat of walnut wood / a boat with three golden masts
  / the wind ~die, and every sail ~hang like a wet towel
  / ~take off one shoe and ~paddle with it / the little walnut boat ~slide over the line
kite day / a kite of brown paper / a silk dragon from the city
  / a hard wind ~tear the silk and ~snap the thin strings
  / ~let out more string, little by little, and ~let the brown kite dance with the wind
  / the brown paper kite ~be the only one left in the sky
baking day / a plain apple pie / a tower of sugar and cream
  / the sun ~melt the cream, and the tower ~lean, and ~lean, and ~fall
  / ~cut the plain pie into small pieces, so that everyone ~have a taste
  / not one crumb of the apple pie ~be left
lantern night / a lantern of turnip skin / a lantern of crystal
  / rain ~begin to fall, and one light after another ~go out
  / ~hold a big leaf over the turnip lantern / the turnip lantern ~be still burning when the rain
  ~stop
cart race / a cart with four odd wheels / a painted cart with silver bells
  / the painted cart ~sink into the mud, and its driver ~begin to cry
  / ~stop, ~turn around, and ~tie the two carts together
  / both carts ^cross the line side by side
music day / a fiddle made from a box / a shiny new trumpet
  / a string ~break in the middle of the song
  / ~tap the box like a drum and ~sing the missing notes
  / the whole square ~be clapping in time
""",
    "mystery": """
name / clue / guess / trail / answer / kindness
light / a small light ~move through the garden every night / a ghost with a candle
  / a line of tiny wax drops / an old neighbor with a lantern, looking for a lost wedding ring
  / ^find the ring between two stones
music / soft music ~come from the empty house every evening / a magic piano
  / a sheet of music on the stairs / a shy music teacher who ~have no piano at home
  / ^ask the village for a piano that nobody ~need
milk / the milk on the doorstep ~vanish every morning / a thirsty giant
  / a trail of white paw prints on the path / a gray cat with five hungry kittens
  / ^put out a second bowl of milk and a warm blanket
bread / a loaf ~vanish from the bakery every Monday / a very hungry ghost
  / a trail of crumbs along the alley / a boy from the river boats, feeding his little sisters
  / ^ask the baker to give the family work and warm bread
flowers / a fresh flower ~lie on the old bench every day / a prince in disguise
  / a row of fallen petals on the hill road / an old gardener who ~miss his wife, because it ~have
  been her
  bench
  / ^sit down beside the old man and ^let him talk about her
bell / the broken bell in the chapel ~ring at noon / a dragon in the tower
  / a black feather on the narrow stairs / a jackdaw that ~have built a nest on the bell rope
  / ^hang up a sign, so that nobody ~pull the rope before the young birds can fly
""",
    "dream": """
name / first / failure / turn / fulfilled
fly / ~tie two wings of paper to {hero.his} back and ~jump from the hay cart
  / The wings ^fold like wet leaves, and {hero} ~land in the hay
  / the miller ~let {hero} ride in the basket of the big balloon
  / Higher and higher it ~go, until the fields ^look like pieces of a puzzle
touch the moon / ~pile all the chairs on the roof of the shed
  / The chairs ^wobble, and everything ~come down with a crash
  / the pond ~be so still that the moon ~lie in it like a plate
  / {hero} ~put out one finger, and the moon ~tremble and ~smile
see the sea / ~dig a deep hole in the yard and ~fill it with buckets of water
  / By morning the water ~be gone, and there ~be only mud
  / the ferry captain ~need somebody to feed the gulls
  / When the last hill ~be behind them, there ~be nothing but blue
play the violin / ~stretch four strings over a cigar box
  / It ~sound like a cat in a bucket
  / the old fiddler at the inn ~offer to teach {hero} one song every Friday
  / On midsummer night {hero} ~play, and the whole village ~dance
find a dragon / ~leave a bowl of hot pepper soup by the cave
  / In the morning the soup ~be cold, and a goat ~have eaten the bowl
  / a small green lizard ~fall asleep in the sun on {hero}'s sleeve
  / It ~breathe no fire, but it ~be warm, and it ~be real
have a snowman in summer / ~hide a snowball in the cellar under six blankets
  / By June the blankets ^be wet, and the snow ~be gone
  / the ice man ~give {hero} the last crumbs of ice from his wagon
  / It ~be a very small snowman, and it ~wear a thimble for a hat
""",
    "accident": """
name / whose / how / lie / cost / mend
blue vase / {g}'s / {hero} ~chase a ball through the parlor, and the blue vase ~fall / the wind
  / The window ~be nailed shut all summer because of the wind
  / ~glue the pieces together, one by one, with golden paint in the cracks
clock / {g}'s / {hero} ~turn the hands of the old clock backward to make the day longer, and a
  spring ~snap / the cat
  / The poor cat ~be shut in the shed
  / ~take the clock to the watchmaker and ~sweep the shop for a week to pay for it
apple jam / {g}'s / {hero} ~taste one spoonful of apple jam, and then one more, until the jar ~be
  empty / the
  mice
  / {g} ~set out a trap for the mice
  / ~pick a whole basket of apples and ~stir a new pot of jam
garden gate / {g}'s / {hero} ~swing on the gate until a hinge ~break / the goat
  / The goat ~be tied to a post, far from the sweet grass
  / ~hold the gate straight while {g} ~drive in the new nails
straw hat / {g}'s / {hero} ~use the hat as a boat, and it ~sink in the pond / the dog
  / The dog ~get no bone that evening
  / ~weave a new hat from fresh straw, with a ribbon around it
""",
    "gift": """
name / wish / price / make / stuff
shawl / something warm for the winter / a shawl in the shop window / ~knit a small shawl / wool from
  the hedges
lamp / something to read by / a fine lamp in the shop window / ~make a lantern / a jam jar and a
  candle
song / something to remember / a golden music box in the shop window / ~write a song / a bundle of
  old letters
chair / a place to rest / a soft chair in the shop window / ~build a small rocking chair / an old
  board and a new cushion
book / a book of adventures / a thick book in the shop window / ~write a book / brown paper and a
  ribbon
garden / flowers in the winter / a glass rose in the shop window / ~cut a garden of flowers /
  colored paper
""",
    "seed": """
name / doubt / grows / shared
a round black seed / It looks like a button / a sunflower as tall as the chimney
  / seeds for every bird in the valley
a wrinkled brown seed / It looks like an old raisin / a peach tree with pink flowers
  / a peach for everyone in the street
a flat white seed / It looks like a fingernail / a pumpkin as big as a cart
  / soup for the whole village
a tiny red seed / It looks like a crumb / a bush of wild strawberries
  / strawberries for every child in the school
a hard gray seed / It looks like a pebble / a young walnut tree
  / shade for everyone who ~rest there
""",
}

RULES = {
    "once@past": """
Once upon a time,
Once upon a time,
Long ago,
Many years ago,
""",
    "once@present": """
Not far from here,
Far beyond the hills,
Beyond the last hill,
""",
    "close": """
And that ~be enough.
And the stars over {town} ^shine a little brighter that night.
Outside, the wind ~grow quiet, as if it ~be listening too.
It ~be a small thing, but small things ^last.
From then on, nobody in {town} ~feel quite so alone.
And when the rain ~fall on the roof, it ~sound like soft applause.
That night {town} ~sleep well, and the moon ~keep watch.
And somewhere far away, a clock ~strike twelve.
And that ~be how the best of days ~begin.
A [church|tower] clock ~strike nine, and one by one the windows of {town} ^turn dark.
Over {town} the moon ~come up, round and [white|yellow|kind].
It ~be a story that the grandmothers of {town} ^like to tell when the [snow|rain] ~fall.
And if the wind ~be right, people ^hear the bells of {town} all the way to the [river|hills|sea].
The [swallows|owls|crickets] of {town} ^have seen it all, but they ^keep it to themselves.
In {town} people ^call it a good year for [apples|friends|honey|stories].
-
-
-
""",
}
