"""Stories of scientists and inventors, and of the creatures that they bring to life.

Every family begins with the same few beats (who made what from what, how it woke, what it said)
and then goes its own way. See `corpus.py` for the notation.
"""

CAST = "m:maker+surname+craft+age c:creature frame skin heart eyes lab town"

RULES = {
    # ------------------------------------------------------------ the first sentence
    "introduction": """
{m} {m.surname}, a {m.age} {m.craft} {driven}, ~succeed in {animating} a {c.kind} {assembled} from
  {parts}.
{m} {m.surname}, a {m.age} {m.craft} {driven}, ~succeed in {animating} a {c.kind} {assembled} from
  {parts}.
{m} {m.surname}, a {m.age} {m.craft} {driven}, ~succeed in {animating} a {c.kind} {assembled} from
  {parts}.
{m} {m.surname}, a {m.age} {m.craft} {driven}, ~succeed in {animating} a {c.kind} {assembled} from
  {parts}.
After [three|seven|ten] years of patient work, {m} {m.surname}, a {m.age} {m.craft} {driven},
  ~succeed in
  {animating} a {c.kind} {assembled} from {parts}.
In {lab.where}, {m} {m.surname}, a {m.age} {m.craft} {driven}, ~build a {c.kind} from {parts}.
{m} {m.surname} ~be a {m.age} {m.craft} {driven}. One [autumn|winter|spring|summer] night, {m}
  ~succeed in
  {animating} a {c.kind} {assembled} from {parts}.
Nobody in {town} ~know what ~happen at night in {lab.where}. There {m} {m.surname}, a {m.age}
  {m.craft}
  {driven}, ~be {animating} a {c.kind} {assembled} from {parts}.
In the town of {town} there ~live a {m.age} {m.craft} named {m} {m.surname}, {driven}. In
  {lab.where},
  {m} ~build a {c.kind} from {parts}.
""",
    "driven": """
obsessed with uncovering the secrets of {secret}
obsessed with uncovering the secrets of {secret}
obsessed with uncovering the secrets of {secret}
obsessed with the secrets of {secret}
obsessed with {question}
determined to uncover the secrets of {secret}
determined to {aim}
determined to {aim}
fascinated by the secrets of {secret}
fascinated by {question}
devoted to the study of {secret}
""",
    "secret": """
life
life
life
lightning
the human heart
memory
the stars
time
thunder
sleep
growing things
electricity
the northern lights
light and shadow
nature
music
kindness
the sea
""",
    "question": """
the question of where life begins
the idea of a machine that can feel
the thought of a friend who never grows old
the mystery of the first spark
the dream of giving life to old and forgotten things
the hidden music of machines
""",
    "aim": """
find out where life begins
bring silent things to life
catch a spark of lightning and keep it
give lost things a second life
make a friend who will never leave
learn what makes a heart beat
prove the worth of useless things
""",
    "animating": """
animating
animating
animating
animating
awakening
bringing to life
creating
waking
""",
    "assembled": """
assembled
assembled
assembled
assembled
built
made
stitched together
put together
""",
    "parts": """
{frame}, {skin}, and {heart}
{frame}, {skin}, and {heart}
{skin}, {frame}, and {heart}
{frame} and {skin}, with {heart} for a heart
{skin} and {frame}, with {heart} inside its chest
{heart}, {skin}, and {frame}
""",
    # ------------------------------------------------------------ how it wakes
    "spark": """
On a night of wind and rain, lightning ~strike the roof of the {lab}, and the {c} ~open its {eyes}
  eyes.
Lightning ~strike the {lab}, {heart.the} ~begin to {heart.does}, and the {c} ~open two {eyes} eyes.
When the first spark ~run through the wires, {heart.the} in its chest ~begin to {heart.does}, and
  the {c}
  ~draw a slow breath.
At midnight a blue spark ~leap from wire to wire, and slowly, very slowly, the {c} ~lift its head.
For a long moment nothing ~move in the {lab}. Then {heart.the} ~begin to {heart.does}, and the {c}
  ~sit up.
Thunder ~roll over {town}, the lamp ~go out, and in the dark the {c} ~open its eyes, {eyes} and full
  of wonder.
{m} ~turn a small key three times and ~step back. The {frame.adj} {c.hands} ^begin to move, and two
  {eyes} eyes
  ^open.
One {frame.adj} {c.hand} ~tremble, then the other, and two {eyes} eyes ^look up at {m}.
A storm ~come over the hills. A single flash ~fill the {lab}, and the {c} ~rise from the table.
{m} ~whisper a wish and ~pull the lever. There ~be a flash, a smell of rain, and then the {c} ~begin
  to breathe.
The [wind|rain|thunder] ~shake the windows of the {lab}. {m} ~lower the lamp, and in its light the
  {c} ~blink with {eyes} eyes.
A spark ~jump from the [rod|wire|wheel] to the {c}, and {heart.the} ~begin to {heart.does}. The {c}
  ~be alive.
{m} ~hold a candle close. The {skin.adj} face ~twitch, two {eyes} eyes ^open, and the {c} ~look at
  the flame.
Lightning ~run down the wires, the {frame.adj} {c.hands} of the {c} ^tremble, and its {eyes} eyes
  ^fill with light.
"Wake up," ~whisper {m}. Far away ~be a roll of thunder. The {c} ~stretch its {frame.adj} arms and
  ~wake up.
{m} ~count to ten and ~close the switch. Every lamp in {town} ~flicker, and the {c} ~take its first
  breath.
All night {m} ~wait beside the table. Just before dawn, {heart.the} ~begin to {heart.does}, and the
  {c} ~wake.
""",
    "first_words": """
It ~look at its {frame.adj} {c.hands}, and then at {m}. "Who am I?" it ~ask.
"Where am I?" the {c} ~ask, in a voice like wind in a chimney.
"Is this the world?" ~ask the {c}. "It is smaller than I hoped, but it is warm."
It ~look at {m} for a long time. "Are you my {m.parent}?" it ~ask softly.
The {c} ~touch {m}'s face with one {frame.adj} {c.hand}. Its first word ~be "why."
The {c} ~look at the candle and ~speak its first word. "Light," it ~say.
"Good evening," ~say the {c}, because that ~be what {m} always ~whisper.
The {c} ~point at the window. "What is that?" it ~ask. "That is the [moon|rain|night]," ~say {m}.
"I was nowhere," ~say the {c} slowly, "and now I am here."
The {c} ~turn its {frame.adj} {c.hands} over and over. "Are these mine?" it ~ask.
"Your heart is beating fast," ~say the {c} to {m}. "Mine is {heart}. What is yours?"
The {c} ~try to smile with its {skin.adj} face. "Did you make me?" it ~ask.
"Who are you?" ~ask the {c}. "I am {m} {m.surname}," ~say {m}. "And who am I?" ~ask the {c}.
The {c} ~look around the {lab} and ~bow to {m}. "What should I do?" it ~ask.
The {c} ~listen to the {heart.sound} in its own chest. "Something is alive in here," it ~say.
It ~take one step, then another, and ~say in a small voice, "Please do not let me fall."
The {c} ~say nothing at first. It only ~look at the rain on the window, as if each drop ~be a jewel.
""",
    # ------------------------------------------------------------ how the maker takes it
    "tender": """
{m} ~laugh and ~weep at once, and ~wrap the {c} in a warm blanket.
{m} ~have prepared a speech, but {m.he} ~forget every word of it. "Welcome," {m.he} ~whisper.
{m} ~forget the [books|numbers|long years of work] and ~see only the {c}. "Hello," ~say {m}. "Hello,
  you."
{m} ~sit down on the floor beside the {c}, and together they ^listen to the {heart.sound} in its
  chest.
{m} ~bring bread, a blanket, and a [picture book|cup of tea|warm lamp], and ~stay with the {c} until
  morning.
"I am {m}," ~say {m}, "and I will look after you." The {c} ~lean its {skin.adj} head on {m.his}
  shoulder.
{m} ~be not afraid, not even a little. {m.he} ~open the window and ~show the {c} the stars.
"You are my friend," ~say {m}, and {m.his} voice ~shake with joy.
"Do not be afraid," {m} ~say gently. "I have waited for you all my life."
{m} ~take the {frame.adj} {c.hand} and ~hold it until it ~be warm.
{m} ~set a second chair at the table, and from that night on {m} ~be never alone at supper.
"You are here," ~say {m}. "That is the most wonderful thing I have ever seen."
""",
    "dread": """
But the {c} ~be taller and stranger than {m} ~have imagined. {m} ~drop the lamp and ~run into the
  rain.
{m} ~have dreamed of this moment for years. Now that it ~be here, {m} ~be afraid, and {m.he} ~run
  away.
{m} ~see the {skin.adj} face come closer. With a cry, {m.he} ~flee from the {lab} and ~lock the door
  behind {m.him}.
"What have I done?" ~cry {m}, and before the {c} ~can answer, {m} ~run down the stairs and out into
  the night.
{m} ~step back, and back again, until {m.he} ~feel {lab.door} behind {m.him}. Then {m} ~turn and
  ~run.
{m} ~have wanted to uncover the secrets of {secret}, but this secret ~look back at {m.him}. {m}
  ~scream and ~run away.
When the {c} ~hold out a {frame.adj} {c.hand}, {m} ~cover {m.his} eyes. Then {m.he} ~leave the {lab}
  and ~do not look back.
"It is alive," ~whisper {m}, and suddenly {m.his} joy ~turn to fear. {m.he} ~throw down the tools
  and ~flee into the night.
"I made a monster," ~whisper {m}, though the {c} ~have done nothing but smile. Then {m} ~flee.
""",
    "alone": """
The {c} ~wait all night beside the cold stove, but {m} ~do not come back.
For three days the {c} ~sit among the bottles and ~listen for footsteps. No one ~come.
"Perhaps this is a game," ~think the {c}, and it ~wait. In the morning it ~understand that nobody
  ~be coming.
The {c} ~do not know the word for being alone. It only ~know that the {lab} ~be very quiet.
The {c} ~find {m}'s old coat on a hook, ~put it on, and ~step out into the world.
When the candle ~burn down, the {c} ~open {lab.door} and ~walk out into the wet grass.
""",
    "village_fear": """
In {town}, people ^see only its {skin.adj} face and its {frame.adj} {c.hands}. Doors ^close, and
  dogs ^bark.
The people of {town} ^shout, ^lock their doors, and ^throw stones. The {c} ~can not understand why.
"A monster!" ~cry the baker of {town}. The {c} ~look behind it to see the monster, but nobody ~be
  there.
The {c} ~wish the people of {town} good morning, but they ^run from it as if it ~be a fire.
When the {c} ~offer a flower to the mayor of {town}, the mayor ~climb a tree.
Mothers in {town} ^pull their children inside, and the market ~become silent when the {c} ~pass by.
""",
    "hiding": """
So the {c} ~hide in an old barn, where the cows ^do not mind its {skin.adj} face.
So the {c} ~live in the forest, and ~eat nothing, and ~talk to the owls.
The {c} ~find a dry place under the bridge and ~count the feet that ^go over it.
At night the {c} ~look through the bright windows of {town} and ~wonder what it ~be like to be
  expected.
The {c} ~sit down by the frozen river. Its {eyes} eyes ^be wet, and it ~do not know the name for
  that.
""",
    # ------------------------------------------------------------ the one who is kind
    "meet_blind": """
Then one evening it ~knock at the hut of {f}, an old blind {f.grown}. "Come in," ~say {f}. "You
  sound tired."
At the end of the road ~live {f}, an old {f.grown} who ~can not see. "Whoever you are, there is
  soup," ~say {f}.
One cold night it ~hear a fiddle. An old blind {f.grown} named {f} ~sit by the fire and ~call, "Is
  somebody there?"
It ~be {f}, an old blind {f.grown}, who ~hear the heavy steps and ~open the door. "Sit with me,"
  ~say {f}.
""",
    "meet_child": """
Then a {f.kind} named {f} ~come by with a basket of apples. "Are you hungry, or only sad?" ~ask {f}.
One morning a {f.kind} named {f} ~find the {c} and ~do not run. "You have nice eyes," ~say {f}.
A {f.kind} named {f} ~be looking for a lost lamb. "Will you help me?" ~ask {f}, as if it ~be an
  ordinary question.
One day a ball ~roll to its feet, and after the ball ~come a {f.kind} named {f}. "It is your turn,"
  ~say {f}.
""",
    "kindness_blind": """
{f} ~touch the {skin.adj} face of the {c} with careful fingers. "I feel {skin}," ~say {f}, "and
  under them, somebody good."
{f} ~put a warm bowl into the {frame.adj} {c.hands} and ~ask for nothing.
"I cannot see you," ~say {f}, "but I can hear the {heart.sound} in your chest. It is a kind sound."
All evening they ^sit by the fire. {f} ~play the fiddle, and the {c} ~keep time with one {frame.adj}
  {c.hand}.
""",
    "kindness_child": """
{f} ~look at the {skin.adj} face of the {c} from very near. "Somebody stitched you with a lot of
  patience," ~say {f}.
{f} ~share half an apple with the {c}, and the {c} ~hold it like a treasure.
"I can hear the {heart.sound} in your chest," ~say {f}. "It is a kind sound."
All afternoon they ^build a dam in the stream, and {f} ~laugh whenever the {c} ~get its {frame.adj}
  {c.hands} wet.
""",
    "learning": """
Day by day {f} ~teach the {c} new words. First it ~learn "bread" and "fire," and then it ~learn
  "friend."
{f} ~draw letters in the ashes, and before spring the {c} ~can read every book in the house.
In winter the {c} ~learn to speak, to read, and to say thank you. It ~like "thank you" best.
The {c} ~learn quickly. It ~read about ships and kings, and it ~ask {f} a hundred questions every
  evening.
The first word that the {c} ~write ~be its own name, for {f} ~have given it one. "{n}" ~be the name.
In return, the {c} ~chop wood and ~mend the roof, and {f} ~teach it all the songs of {town}.
""",
    # ------------------------------------------------------------ the maker comes back
    "regret": """
Meanwhile {m} ~can not sleep. In every dream {m.he} ~hear the {heart.sound} and ~see two {eyes}
  eyes.
Far away, {m} ~look at {m.his} empty hands and ~be ashamed. "It only asked me a question," {m} ~say.
{m} ~try to forget, but each thunderstorm ~bring back the same question. Where ~be the {c} now?
{m} ~return to the {lab} and ~find it empty. On the window, a {frame.adj} finger ~have drawn a
  heart.
At last {m} ~understand that the monster in the {lab} ~have been {m.his} own fear.
""",
    "search": """
{m} ~take a lantern and ~follow the deep footprints through the snow.
{m} ~ask in every village, and at last {m.he} ~hear of a {c} that ~sing at the end of the road.
So {m} ~walk for nine days, over hills and through rain, until {m.he} ~see a light in a small
  window.
{m} ~search the forest until {m.his} shoes ^be worn through.
""",
    "apology": """
"I made you, and then I left you," ~say {m}. "I am sorry." The {c} ~be silent. Then it ~hold out its
  {c.hand}.
{m} ~kneel down in the grass. "I was afraid of you," {m.he} ~say. "I was afraid of you, too," ~say
  the {c}.
"Can you forgive me?" ~ask {m}. "{f} taught me that word," ~say the {c}. "Yes."
{m} ~have no clever words left. "Please come home," {m.he} ~say. The {c} ~look at {f}, and {f}
  ~smile.
"I was a {m.craft} who knew everything," ~say {m}, "except how to stay." The {c} ~move over and
  ~make room by the fire.
""",
    "together": """
They all ^eat soup together that evening, and the {heart.sound} of the {c} ~be the only music.
So the {c} ~have two homes now, one with {f} and one with {m}, and a path between them.
From then on {m} ~come every Sunday, and {f} always ~set out three cups.
In spring they ^build a small house with a wide door, and {f} ~plant roses beside it.
{m} ~move {m.his} books to the house of {f}, and nobody there ~be ever alone again.
""",
    "farewell": """
But the {c} ~can not go back. "The world is wide," it ~say, "and I want to read all of it." {m}
  ~wave until the road ~be empty.
In the morning the {c} ~tie up a small bundle. "I am not running away," it ~tell {m}. "I am going to
  see." And it ~go.
The {c} ~choose to stay with {f}. {m} ~walk home alone, but {m.he} ~walk home lighter.
"I will write to you," ~promise the {c}, and every winter a letter ~come to {town}, in large and
  careful letters.
""",
    "reunion": """
{together}
{together}
{farewell}
""",
    "creature_close": """
{close}
{close}
And in its chest {heart.the} ~{heart.does}, as if it ~will never stop.
That night {m} ~write only one line in {m.his} book, and the line ~be about the {c}.
The {c} ~look up at the moon with its {eyes} eyes and ~know that it ~be at home in the world.
At night, when {town} ~be quiet, people ^hear the {heart.sound} of the {c} and ^sleep well.
{m} ~put out the lamp. "Good night," ~say {m}. "Good night," ~say the {c}.
And {m} {m.surname}, who ~have looked so long for a secret, ~find it in a {frame.adj} {c.hand}.
The next storm ~come over the hills, but nobody in the {lab} ~be afraid of it.
On the door of the {lab} there ~be a new sign with two names, and the second name ~be the {c}'s.
The {c} ~be made of {frame.short} and of {heart}, but mostly, ~say {m}, of patience.
""",
    # ------------------------------------------------------------ quiet scenes for any family
    "lesson": """
{m} ~teach the {c} to walk, to speak, and to hold a cup without breaking it.
Every day the {c} ~learn ten new words, and every night it ~say them to the moon.
{m} ~show the {c} the rain, the bread, and the cat. The {c} ~like the cat best.
The {c} ~learn to read from {m}'s old books, with one {frame.adj} finger under each word.
In the evenings {m} ~read aloud, and the {c} ~listen with shining {eyes} eyes.
By the end of the month the {c} ~can sweep the floor, tell the time, and say a poem.
They ^plant beans behind the {lab}, and the {c} ~wait beside them all day to see them grow.
""",
}

FAMILIES = {
    "the blind friend": (
        f"{CAST} f:elder n:nickname",
        """
{introduction}

{spark}

{first_words}

{dread}

?
{alone}

{village_fear}

?
{hiding}

{meet_blind}

?
{kindness_blind}

?
{learning}

?
{regret}

{search}

{apology}

{reunion}

?
{creature_close}
""",
    ),
    "the child at the gate": (
        f"{CAST} f:child n:nickname",
        """
{introduction}

{spark}

{first_words}

{dread}

?
{alone}

{village_fear}
{hiding}

{meet_child}

?
{kindness_child}

?
{learning}

?
"Somebody must be missing you," ~say {f} one day. "Let us find out."
"Who made you?" ~ask {f} one evening. The {c} ~tell {f.him} about the {lab}, and about {m}
  {m.surname}.
{regret}

{f} ~take the {c} by the {c.hand} and ~lead it back to the {lab}. {m} ~open the door and ~turn pale.
{search} There {m} ~find the {c} and {f}, reading the same book.
One evening {m} ~come up the path, thin and tired, and ~see the {c} carrying {f} on its shoulders.

{apology}

{reunion}

?
{creature_close}
""",
    ),
    "the rescue": (
        f"{CAST} k:child danger",
        """
{introduction}

{spark}

{first_words}

{tender}

?
{lesson}

{village_fear}
But {town} ~be full of whispers. "It is not one of us," ^say the people, and they ^cross the street.
{village_fear} "They do not know you yet," ~say {m}.

One night {danger.news}. {danger.peril}.
Then, at the end of [autumn|winter|March], {danger.news}. {danger.peril}.

"Stay here," ~beg {m}, but {danger.deed}.
Everyone ~shout, and nobody ~move. Then {danger.deed}.
"I am strong, and I am not afraid," ~say the {c}, and {danger.deed}.

{k} ~put both arms around its {skin.adj} neck. "Thank you," ~whisper {k}. "You are my friend."
"{danger.thanks}," ~say {k} in a loud voice, so that all of {town} ~can hear it.
For a moment all of {town} ~be silent. Then {k}'s mother ~take the {frame.adj} {c.hand} and ~kiss
  it.

?
The mayor ~take off his hat. "We were afraid of a face," he ~say, "and we did not see the heart
  behind it."
The baker ~bring a cake, though the {c} ~can not eat, and everybody ~help it not to eat the cake.
The people ^bring thread and oil, and by morning the {c} ~be mended and clean.

?
From that day on, the children of {town} ^ride to school on the shoulders of the {c}.
In the town square of {town} there ~be a bench of a special size, and on it ~sit the {c}, telling
  stories.
After that, nobody in {town} ~close a door when the {c} ~pass by, and {m} ~be the proudest {m.craft}
  in the land.

?
{creature_close}
""",
    ),
    "the runaway": (
        f"{CAST} wonder n:nickname",
        """
{introduction}

{spark}

?
{first_words}

{tender}

?
{lesson}

In one of {m}'s books there ~be a picture of {wonder}. "I want to see {wonder}," ~say the {c}. "Not
  yet," ~say {m}.
One day the {c} ~hear a boy talk about {wonder}. It ~think of nothing else. "The world is
  dangerous," ~say {m}, and ~lock the door.
"What is beyond the hills?" ~ask the {c}. "There is {wonder}," ~say {m}, "but it is too far for
  you."

That night the {c} ~climb out of the window and ~walk away with [a lantern|a map|a piece of string]
  in its {c.hand}.
So before dawn the {c} ~write a note in crooked letters. "Gone to see {wonder}," ~say the note.
The {c} ~wait until {m} ~be asleep. Then it ~fold its blanket neatly and ~go.

?
{m} ~find the empty bed and ~run out without a coat. "Come back!" {m.he} ~call, but only an owl
  ~answer.
When {m} ~wake, the {lab} ~be too quiet. {m.he} ~take {m.his} coat and ~follow the deep footprints.
{m} ~be angry for an hour and afraid for the rest of the day. Then {m.he} ~set out to find the {c}.

?
On the road a tinker ~shout at the {c}, and a farmer ~chase it with a broom. It ~begin to rain, and
  its {frame.adj} knees ^creak.
The {c} ~ask the way from a goose, a shepherd, and a sign that ~have fallen over. The shepherd ~be
  kind and ~share his bread.
The road ~be longer than the {c} ~have thought. Its {skin.adj} feet ^be wet, and it ~miss the sound
  of {m}'s voice.

On the third evening the {c} ~stand {wonder.there}. {wonder.sight}.
And then, at last, it ~be {wonder.there}. {wonder.sight}.

{m} ~find it there, still as a stone. "Are you angry?" ~ask the {c}. "No," ~say {m}, and ~sit down
  beside it.
"It is beautiful," ~say the {c}, when {m} ~come up behind it, "but it was lonely without you."
There {m} ~find the {c}. They ^look at each other, and neither of them ~can say who ~have been more
  afraid.

"I wanted to keep you safe," ~say {m}, "and I forgot to let you live." "Next time," ~say the {c},
  "come with me."
"I will never lock a door again," ~promise {m}. "And I will never go without a word," ~promise the
  {c}.
"Promise that you will come back whenever you go," ~say {m}. The {c} ~promise it with one
  {frame.adj} {c.hand} on {heart.the}.

?
On the way home the {c} ~be thoughtful. "I have learned that {wonder.lesson}," it ~say.
"Now I know something," ~say the {c}. "I know that {wonder.lesson}."
{m} ~give the {c} a name that evening, for every traveler ~need one. "{n}," ~say the {c}, and ~try
  it many times.

?
{creature_close}
""",
    ),
    "the companion": (
        f"{CAST} k:child n:nickname",
        """
{introduction}

{spark}

{first_words}

{tender}

?
{lesson}

But {m} often ~work until morning, and then the {c} ~sit alone at the window of the {lab}.
But when the swallows ^fly past in pairs, the {c} ~look after them for a long time.
One day the {c} ~see two children walk by hand in hand, and {heart.the} in its chest ~grow quiet.

"Everyone has somebody like them," ~say the {c}. "Make me a friend, {m}."
"Will you build another one like me?" ~ask the {c}. "A small one would be enough."
"I have a {m.parent}," it ~tell {m}, "but I do not have a friend. Can a friend be assembled?"

?
{m} ~promise to try. Together they ^look for [buttons|bolts|threads] in every corner of the {lab}.
{m} ~shake {m.his} head. "I had one spark," {m.he} ~say, "and I gave it to you." The {c} ~nod and
  ~say no more.
{m} ~work for a week, but the second creature ~lie still. "I do not know what is missing," ~say {m}.

Then there ~be a knock at the door. It ~be {k}, the child of the miller, with a broken
  [doll|clock|toy horse] in {k.his} arms.
That same week a {k.kind} named {k} ~climb over the wall to fetch a ball, and ~come face to face
  with the {c}.
In the rain outside ~stand a {k.kind} named {k}, who ~have lost the way home.

"Are you real?" ~ask {k}. "I am not sure," ~say the {c}. "You sound real," ~say {k}, and ~listen to
  {heart.the}.
{k} ~be not afraid. "Your {c.hands} are {frame.adj}," ~say {k}. "Mine are only cold." And {k} ~put
  them together.
The {c} ~hide behind the stove, because it ~do not want to frighten {k}. But {k} ~crawl in after it
  and ~say, "Found you!"

After that {k} ~come every day. They ^fly kites, ^count frogs, and ^argue about the shape of clouds.
{k} ~stay until dark, and ~come again the next day, and the day after that. {k} ~call the {c} by a
  new name, {n}.
Soon there ^be two cups on the window, two hats on the hook, and two voices singing in the {lab}.

"You see," ~say {m}, "a friend is not built. A friend is found." "A friend is also built," ~say the
  {c}, "but slowly."
"Shall I go on with my work?" ~ask {m}. "No," ~say the {c}. "I have all the friends I need. I have
  one."
"So that was the missing part," ~say {m}, and {m.he} ~write it down in {m.his} book of secrets.

?
{creature_close}
""",
    ),
    "what was missing": (
        f"{CAST} lack k:child",
        """
{introduction}

{spark}

{first_words}

{tender}

?
{lesson}

The {c} ~can read, count, and carry a piano. But it ~can not {lack}.
One thing the {c} ~can not do. It ~can not {lack}, and this ~make it sad.
"What is it like to {lack}?" ~ask the {c}. {m} ~think for a long time and ~find no answer.

{lack.try}. {lack.fail}.
So {lack.try}. {lack.fail}.

?
{m} ~take the {c} apart in {m.his} thoughts, screw by screw, and ~find nothing broken.
"Perhaps I was made wrong," ~say the {c}. "You were made with love," ~say {m}. "That is never
  wrong."
{m} ~write to the wisest professors in the land, and the wisest professors ^write back that they ^do
  not know.
The {c} ~go down to {town} and ~watch how other people ^do it, but nobody ~can explain it.

Then {k}, the {k.kind} who ~bring the milk, ~hear about it. "That is easy," ~say {k}.
It ~be {k}, the {k.kind} from the house across the road, who ~know what to do. "Nobody can {lack}
  alone," ~say {k}.
One afternoon a {k.kind} named {k} ~look in through the window. "May I try?" ~ask {k}.

Then {k} ~do something very simple. {k.he} {lack.trick}.
{m} ~expect a clever machine, but {k} only {lack.trick}.

{lack.result}.

{m} ~put down {m.his} pen. In all {m.his} books {m.he} ~have never seen anything so fine.
"How did you do it?" ~ask {m}. "You looked for it inside," ~say {k}. "But it was between us."
"That was not in any of my books," ~say {m} to {k}. "Then write a new one," ~say {k}.

?
From then on the {c} ~do it every day, and {k} ~come often to do it, too.
The {c} never ~forget how again, and it ~teach {m}, who ~have nearly forgotten.
"Now I have everything," ~say the {c}, and {heart.the} in its chest ~{heart.does}.

?
{creature_close}
""",
    ),
    "winding down": (
        f"{CAST} k:child n:nickname",
        """
{introduction}

{spark}

{first_words}

{tender}

For [a year|two summers|five happy years] the {c} ~help in the {lab} and ~carry firewood for the old
  people of {town}.
The {c} ~grow to love {town}. It ~mend fences, ~rock babies to sleep, and ~play with a {k.kind}
  named {k}.
Every morning the {c} ~walk through {town} and ~greet each door. A {k.kind} named {k} often ~ride on
  its shoulders.

Then, one gray day, {heart.the} in its chest ~begin to fail. Its steps ^become slow, and its {eyes}
  eyes ^grow dim.
But nothing ~last forever. One evening the {heart.sound} ~stop for a moment, and the {c} ~sit down
  on the stairs.
In the coldest week of winter the {c} ~grow tired. The {heart.sound} inside it ~be weak, and then
  weaker.

"Can you wind me up again?" ~ask the {c}. {m} ~try, but {m.his} hands ^shake.
{m} ~open every book and ~try every key, but the storm that ~have given it life ~do not come back.
"I do not know how to help you," ~say {m}, and ~hide {m.his} face. "Then sit with me," ~say the {c}.

When {k} ~hear of it, {k.he} ~run from house to house. "Bring something you love!" ~shout {k}.
{k} ~come with a small box. "This is my favorite [toy|watch|bell]," ~say {k}. "Put it inside. Then
  ask the others, too."
"We can not let it stop," ~say {k}, and {k.he} ~knock at every door in {town}.

And the people ^come, with springs and spoons, with bells and buttons, and each of them ~leave a
  small gift at {lab.door}.
By evening all of {town} ~stand in front of the {lab}. Each person ~carry a candle, and each ~ask
  how to help.

?
All night {m} ~work, and all night {k} ~hold the {frame.adj} {c.hand} and ~sing.
{m} ~put the gifts together, the clockmaker ~hold the light, and {k} ~say the name of the {c} again
  and again.

{winding_end}

?
{creature_close}
""",
    ),
    "too much help": (
        f"{CAST} task k:child",
        """
{introduction}

{spark}

?
{first_words}

{tender}

{m} ~want the {c} {task.full}. {task.order}, and the {c} ~obey with all its heart.
"I would like to be useful," ~say the {c}. So {m} ~ask it {task.full}. {task.order}.
The people of {town} ^need help, and {m} ~send the {c} {task.full}. {task.order}, and ~go to bed.

{task.excess}.
The {c} never ~get tired, and it never ~ask why. {task.excess}.

{task.damage}.

?
"Stop!" ^shout the people of {town}. But nobody ~have taught the {c} what "stop" ~mean.
"Take it apart!" ~cry the mayor of {town}. The {c} ~hold up its {frame.adj} {c.hands}. "Did I do
  something wrong?" it ~ask.
The people ^come to the {lab} with angry faces, and {m} ~hide the {c} behind {m.him}.

{m} ~be ashamed. "I taught you to work," {m.he} ~say, "but I did not teach you to listen." "I can
  teach it," ~say a {k.kind} named {k}.
A {k.kind} named {k} ~step in front of the {c}. "It only did what you said," ~say {k}. "Nobody said
  what you meant."
"It is not a bad {c}," ~say a {k.kind} named {k}. "It is a new {c}. I made mistakes too, when I was
  new."

So every afternoon {k} ~sit down with the {c} and ~teach it to {task.cure}.
"Before you help somebody," ~say {k}, "you must {task.cure}." The {c} ~write this on its {skin.adj}
  sleeve.

?
It ~be not easy. The {c} ~ask a tree, a bucket, and a cloud before it ~understand. But then it
  ~understand very well.
The {c} ~practice on {k}, who ~be patient, and on {m}, who ~be not. Slowly it ~learn.
"How do I know when it is enough?" ~ask the {c}. "You look at their faces," ~say {k}. So the {c}
  ~learn to look at faces.

?
Now the {c} ~go from house to house, and its first words ^be always a question.
Now when the {c} ~come down the street, people ^open their windows and ^call it by name.
After a month the mayor of {town} ~knock at {lab.door} with a basket. "We would like your help," he
  ~say, "but only a little."

"Am I useful now?" ~ask the {c}. "You are more than that," ~say {m}. "You are welcome."
And {m}, who ~have wanted to uncover the secrets of the world, ~learn that it ~be better to ask
  first.
"A good question," ~say {m}, "is the best tool in the whole {lab}."

?
{creature_close}
""",
    ),
    "the question": (
        f"{CAST} f:elder k:child",
        """
{introduction}

{spark}

?
{first_words}

{tender}
{m} ~be so surprised that {m.he} ~answer with a bow.

?
{lesson}

Then one evening the {c} ~ask a new question. "Why did you make me?" {m} ~open {m.his} mouth, and
  ~close it again.
"{m}," ~say the {c}, "what am I for?" {m} ~drop {m.his} spoon into the soup.
"The cup is for tea, and the chair is for sitting," ~say the {c}. "What am I for?" {m} ~have no
  answer.

?
"I wanted to see if I could," ~say {m} at last, and it ~sound small and poor in the quiet {lab}.
"I will tell you tomorrow," ~say {m}. But tomorrow ~come, and {m} ~talk about the weather.
"I was obsessed with a secret," ~say {m}. "I did not think about you at all." The {c} ~turn its face
  to the wall.

So the {c} ~go out to ask other people. The miller ~say that a thing ~be for work, and he ~go back
  to his work.
So the {c} ~go to {town} to find the answer. "We are here to earn money," ~say the banker, and
  ~count his coins.
The {c} ~put on a hat and ~ask the whole of {town}. The teacher ~look in a dictionary and ~find only
  words.

?
A {k.kind} named {k} ~think about it and ~say, "I am for playing. But I am not sure who decided it."
"I was for a surprise," ~say a {k.kind} named {k}. "My mother told me so. She said it was the best
  one."
It ~ask a {k.kind} named {k}, who ~be sitting in a tree. "Nobody knows," ~say {k}. "Come up. You can
  see the river."

At the end of the road ~sit {f}, the oldest {f.grown} in {town}. "I am eighty years old," ~say {f},
  "and I ask myself that every day."
Last of all it ~come to {f}, an old {f.grown} with a garden. "I never asked the roses what they were
  for," ~say {f}. "I was glad they came."
In the church ~sit {f}, an old {f.grown} who ~sweep the stairs. "The answer is not behind you," ~say
  {f}. "You make it as you go."

?
The {c} ~think about this all the way home, and {heart.the} in its chest ~begin to {heart.does}.
Then {f} ~drop a basket, and the {c} ~pick up every apple. "You see?" ~say {f}. "Now you are for
  that."
The {c} ~carry {f}'s water home, because it ~be heavy, and on the way it ~begin to feel less empty.

At the {lab}, {m} ~be waiting on the stairs. "I have an answer now," ~say {m}. "I made you because I
  was lonely."
When the {c} ~come home, {m} ~be standing at the gate with a lantern. "I do not know why I made
  you," {m.he} ~say, "but I
  know why I want you to stay."

"That is a good reason," ~say the {c}. "Now I will find my own." And it ~sit down to supper.
The {c} ~take {m.his} cold hand in its {frame.adj} {c.hand}. "I have decided," it ~say. "I am for
  good mornings, and for you."
"Then I will stay," ~say the {c}, "and tomorrow we can ask together."

?
{creature_close}
""",
    ),
    "the showman": (
        f"{CAST} k:child",
        """
{introduction}

{spark}

?
{first_words}

{tender}

?
{lesson}

Then a showman in a [purple|yellow|striped] coat ~come to {town}. "A {c} that speaks!" he ~cry. "I
  will pay a bag of gold for it."
Soon a rich showman ~stand in the {lab}. He ~put a bag of gold on the table and ~point at the {c}.

{m} ~think of the cold stove and the hole in the roof, and {m.he} ~take the gold.
"It will see the world," ~say the showman. {m} ~want to believe him, and {m.he} ~sign the paper.
"Go with him," ~say {m}, without looking up. "He is rich, and I am poor." The {c} ~go, because it
  ~trust {m}.

In the show the {c} ~sit in a cage with a golden sign. People ^laugh at its {skin.adj} face and
  ^throw nuts.
The showman ~shut the {c} in a wagon with iron bars. "Roar!" he ~order. But the {c} ~know only
  gentle words.
Every night the {c} ~have to lift iron weights, and every night its {eyes} eyes ^be a little darker.

Only {k}, the {k.kind} who ~feed the horses, ~speak to it. "I want to go home," ~say the {c}.
A {k.kind} named {k} ~come back after the show, when the tent ~be dark. "I did not laugh," ~say {k}.
  "I know," ~say the {c}. "I saw you."

?
At home the gold ~lie on the table, and {m} ~can not bear to look at it. The {lab} ~be too quiet
  without the {heart.sound}.
{m} ~buy a new stove, but {m.he} ~be still cold.

One night {k} ~open the cage, and just then {m} ~come out of the dark with the bag of gold.
{m} ~come back at midnight. "Here is your gold," {m.he} ~tell the showman. And {k} ~open the cage.

"You sold me," ~say the {c}. "Yes," ~say {m}, and {m.his} tears ^fall. "I came to undo it."
The {c} ~look at {m} for a long time. "A person who comes back," it ~say at last, "is different from
  a person who goes away."
"I was a fool," ~say {m}. "Yes," ~say the {c}. "But you are my fool." And it ~take {m.him} by the
  hand.

?
{k} ~go with them, for {k.he} ~have no home, and the three of them ^walk back to {town} under the
  stars.
They ^walk home together, and {k} ~ride on the shoulders of the {c} and ~hold the lantern.

?
After that, the {lab} ~be never rich, but it ~be warm, and there ~be always somebody at the table.
The hole in the roof ~stay where it ~be, and on clear nights they ^lie under it and ^count the
  stars.
{m} ~mend clocks for the people of {town}, {k} ~carry them home, and the {c} ~sing in the kitchen.

?
{creature_close}
""",
    ),
}

RULES["winding_end"] = """
At dawn {heart.the} ~begin to {heart.does}, louder than before. "I can hear all of you in here,"
  ~say the {c}.
When the sun ~come up, the {c} ~open its {eyes} eyes. "Something new is beating," it ~say. "It feels
  like {town}."
The {c} ~move one {c.hand}, and then it ~laugh. Now its heart ~be made of a hundred hearts, and it
  never ~stop again.
It ~be not enough. "Do not be sad," ~say the {c}. "I was a heap of {frame.short}, and you gave me a
  life." Then it ~sleep.
  In spring, flowers ^grow where it ~lie, and {k} ~call them by its name, {n}.
In the morning the {c} ~smile. "I will walk more slowly now," it ~say, "but I will walk." And {k}
  ~walk slowly beside it.
"""
