"""Stories of children and animals, and of the small adventures of every day.

See `corpus.py` for the notation.
"""

RULES = {
    "hero_is": """
{once} in {town}, there ~live a {trait} {hero.kind} named {hero}.
{hero} ~be a {trait} {hero.kind} who ~live in {town}.
In {town} ~live a {trait} {hero.kind} named {hero}.
{hero}, a {hero.kind} from {town}, ~be known for {hero.his} {trait.noun}.
At the end of a lane in {town} ~live a {trait} {hero.kind} named {hero}.
Everybody in {town} ~know {hero}, the {trait} {hero.kind} from the house by the
  [river|mill|well|church].
In a [small|yellow|crooked|narrow] house in {town} ~live {hero}, a {trait} {hero.kind}.
A {trait} {hero.kind} named {hero} ~live with {hero.his} {hero.elder} near {town}.
""",
    "habit": """
{hero} ~like {small_joy}, {small_joy}, and {small_joy}.
{hero} ~love {small_joy} more than {small_joy}.
{hero} always ~carry {pocket} in {hero.his} pocket.
In {hero.his} pocket there ~be always {pocket} or {pocket}.
Everybody ~like {hero}, because {hero.he} never ~laugh at anyone and often ~laugh with them.
{hero} ~can whistle like a bird and walk on [stilts|walls|both hands].
{hero} ~know every [tree|cat|stone|shortcut] in {town} by name.
On Sundays {hero} ~help in the [bakery|garden|library|stable] and ~get {pocket} for it.
""",
    "small_joy": """
[warm|fresh] bread
rain on the roof
[old|long] stories
[ripe|red] cherries
maps
[loud|funny] songs
the smell of [hay|soup|wood]
puddles
[tall|old] trees
[quiet|snowy] mornings
honey
soft blankets
big words
the color [blue|green|yellow|red]
""",
    "pocket": """
a [smooth|white|round] pebble
a piece of [string|chalk|cheese]
a [tiny|dry] acorn
an old button
a [gray|blue] feather
a crooked nail
a [sweet|sour] plum
a stub of pencil
""",
    "morning": """
one [windy|bright|cool|misty] morning
one [autumn|spring|summer|winter] morning
on the first day of [spring|autumn|summer|the holidays]
one [gray|quiet|golden|rainy] afternoon
early one [Monday|Tuesday|Saturday|Sunday]
""",
    "lesson_end": """
{hero} never ~forget that day.
And {hero} ~smile all the way home.
And for a long time afterward, {hero} ~feel warm whenever {hero.he} ~think of it.
That night {hero} ~sleep deeply, with the window open.
"That was a good day," ~say {hero}, and ~yawn.
At supper {hero} ~tell the whole story twice, and everybody ~want to hear it again.
""",
    "advice": """
"Sit down and have some soup first," ~say old {g}. "Big things look smaller after soup."
"When I was little," ~say old {g}, "I was just like you. Try once more."
"You do not have to do it all at once," ~say old {g}. "You only have to begin."
Old {g} ~listen to everything and ~nod. "You already know what to do," ~say {g}.
Old {g} ~put a warm hand on {hero.his} shoulder and ~say nothing, and it ~help.
""",
}

FAMILIES = {
    "lost and found": (
        "hero:child trait town thing:toy|keepsake spot friend:animal",
        """
{hero_is}

?
{habit}

{hero} ~own {thing.full}, {thing.from}. {hero.he} ~love it more than anything and ~take it
  everywhere.
{hero.his} greatest treasure ~be {thing.full}, {thing.from}.
Of all the things in the world, {hero} ~love {thing.full} the most. It ~be {thing.from}.

{morning} the {thing} ~be gone. {hero} ~look under the bed, behind the stove, and inside both boots.
{morning} {hero} ~reach for the {thing}, and it ~be not there. "Oh no," ~whisper {hero}.
{morning} there ~be a hole in {hero.his} bag, and the {thing} ~have vanished.

{hero} ~ask the baker, the postman, and the old donkey, but none of them ~have seen the {thing}.
"Think back," ~say {hero.his} {hero.elder}. "Where did you have it last?" {hero} ~close {hero.his}
  eyes and ~think.
{hero} ~walk back the way {hero.he} ~have come, step by step, with {hero.his} eyes on the ground.
{hero} ~sit down on the step and ~begin to cry, but crying ~do not bring the {thing} back.

Then a small {spot.kind} named {friend} ~come by. "I saw it," ~say {friend}. "Follow me!"
"Are you looking for the {thing}?" ~ask a voice. It ~be {friend} the {spot.kind}. "The
  [wind|magpie|puppy] took it. Come!"
Just then {hero} ~meet {friend}, a {spot.kind} with bright eyes. "I know where it is," ~say
  {friend}.

And there it ~be, {spot.where}. {spot.trouble}, and {hero} ~can not reach it.
The {thing} ~be {spot.where}. {spot.trouble}. {hero} ~try three times and ~fail three times.
They ^find the {thing} {spot.where}. {spot.trouble}. "I will never get it back," ~say {hero}.

"Let me try," ~say {friend}, who ~be {spot.skill}. The {spot.kind} {spot.deed}.
"You forget that I am a {spot.kind}," ~say {friend} with a wink. Then {friend} {spot.deed}.
{friend} ~be {spot.skill}. "Watch me," ~say {friend}, and {spot.deed}.

{hero} ~hold the {thing} tight. "How can I thank you?" ~ask {hero}. "You can share your lunch," ~say
  {friend}.
"You are the best {spot.kind} in the world!" ~cry {hero}, and ~kiss {friend} between the ears.
{hero} ~laugh and ~dance in a circle, and {friend} ~dance along.

From then on {hero} always ~tie the {thing} to {hero.his} belt, and {friend} ~get half of every
  cheese sandwich.
That evening {hero} ~put the {thing} on the window and ~think that {hero.he} ~have lost one treasure
  and found two.
From that day on, {hero} and {friend} ^meet every afternoon, and they ^lose nothing but the time.

{lesson_end}
-
""",
    ),
    "the great fear": (
        "hero:child|animal+beast trait town small:child fear g:elder",
        """
{hero_is}

?
{habit}

{hero} ~be afraid of only one thing, and that ~be {fear}. {fear.scene}.
But {hero} ~have a secret. {hero.he} ~be afraid of {fear}. {fear.scene}.
{fear.scene}. For there ~be nothing that {hero} ~fear as much as {fear}.

Others ^laugh about it, and so {hero} ~say nothing and ~feel small.
{hero} ~make up excuses. {hero.he} ~say that {hero.his} foot ~hurt, or that {hero.he} ~be not in the
  mood.
"I wish I were brave," ~say {hero} to the moon. The moon ~say nothing, but it ~listen.

One day {hero} ~tell old {g} about it. "Everyone is afraid of something," ~say {g}. "I am afraid of
  geese."
"Do you want to know a secret?" ~ask old {g}. "Brave people are afraid, too. They only take the fear
  along."
{g}, the oldest neighbor, ~notice it. "Fear is like a fog," ~say {g}. "From inside, it looks
  endless. Take one step."

Then something ~happen. {fear.call}, and there ~be no one else near.
Then ~come the test. One afternoon {fear.call}. Everybody ~look at {hero}.
Then, one day, {fear.call}. Who ~can help? Only {hero}.

{hero.his} knees ^shake, and {hero.his} heart ~beat like a drum. But {hero} {fear.face}.
{hero} ~take a deep breath. "One step," {hero.he} ~think. Then {hero} {fear.face}.
"I can be afraid and do it anyway," ~say {hero}. And {hero.he} {fear.face}.

{fear.truth}.
And what ~happen? Nothing bad at all. {fear.truth}.

"You did it!" ~cry {small}. "I did it," ~say {hero}, and ~be as surprised as anyone.
{small} ~hold {hero.his} sleeve and ~laugh. "I want to be as brave as you," ~say {small}.
"Were you afraid?" ~ask {small} later. "Very," ~say {hero}, and they both ^laugh.

Old {g} ~nod and ~ask, "Did the fear go away?" "No," ~say {hero}, "but it became smaller."
When {hero} ~tell {g} about it, {g} ~pour two cups of tea and ~say, "To the first step."
{hero} ~run to tell {g}. "And the geese?" ~ask {hero}. "One day," ~say {g}. "One day."

"You see," ~say {g}, "{fear.proud}."
When somebody ~be frightened now, {hero} ~smile. "Do not worry," ~say {hero}, "{fear.proud}."
"Do you know what I found out?" ~say {hero} at supper. "I found out that {fear.proud}."

{close}
""",
    ),
    "the quarrel": (
        "hero:child|animal+beast friend:child|animal+beast trait town quarrel g:elder",
        """
{hero_is}

?
{habit}

{hero.his} best friend ~be a {friend.kind} named {friend}. They ^share everything, even colds.
Next door ~live a {friend.kind} named {friend}. The two ^be together from breakfast until the stars
  ^come out.
{hero} and {friend}, a {friend.kind} from the same lane, ^be the best of friends, and nobody ever
  ~see one without the other.

{morning} {hero} and {friend} ^decide to {quarrel.plan}.
"Let us {quarrel.plan}!" ~say {friend}, {morning}. "Yes!" ~say {hero}.

But {quarrel.fight}. {quarrel.harm}.
It ~go well for almost an hour. Then they ^begin to quarrel. {quarrel.fight}. {quarrel.harm}.
At first they ^laugh a lot. But then {quarrel.fight}. {quarrel.harm}.

"This is your fault!" ~shout {hero}. "No, it is yours!" ~shout {friend}. And each of them ~go home
  alone.
"I never want to see you again," ~say {friend}. "Good," ~say {hero}. But it ~do not feel good.
They ^look at each other with angry eyes. Then {friend} ~turn around and ~walk away.

The next day ~be long and gray. {hero} ~play alone, and every game ~need a second player.
That night {hero} ~can not sleep. {hero.he} ~think of all the good days, and there ^be very many of
  them.
For three days {hero} ~walk past the house of {friend} and ~look the other way. It ~hurt {hero.his}
  neck and {hero.his} heart.

Old {g} ~see {hero} sitting on the wall. "Which is bigger," ~ask {g}, "the quarrel or the friend?"
"I once lost a friend over a spoon," ~say old {g}. "I still have the spoon. I would rather have the
  friend."
"Somebody has to say the first word," ~say old {g}. "It is usually the braver one."

{hero} ~stand up and ~run. At the corner {hero.he} ~bump into {friend}, who ~be running the other
  way.
{hero} ~take a deep breath and ~knock at the door. {friend} ~open it so fast that {friend.he} must
  have been waiting.
So {hero} ~write a letter with one word in it, and the word ~be "sorry." An hour later {friend}
  ~stand at the gate.

"I am sorry," they both ^say at the same moment, and then they ^laugh until they ^have to sit down.
"I was wrong," ~say {hero}. "I was wrong first," ~say {friend}. "Let us not quarrel about that,
  too."
"Do you want half of my apple?" ~ask {friend}. {hero} ~take the smaller half, and that ~say
  everything.

Then they ^begin again. {quarrel.mend}.
"And now?" ~ask {friend}. "Now we try again," ~say {hero}. {quarrel.mend}.

{lesson_end}
{hero} and {friend} still ^quarrel sometimes, but never for longer than one apple.
{close}
""",
    ),
    "the grateful animal": (
        "hero:child trait town patient g:elder",
        """
{hero_is}

?
{habit}

{morning} {hero} ~hear a soft cry behind the [shed|hedge|stone wall]. There ~lie a {patient} with
  {patient.hurt}.
{morning} {hero} ~find a {patient} in the grass. It ~have {patient.hurt}, and it ~can not go on.
On the way home from school, {hero} ~see a {patient} with {patient.hurt}. It ~look at {hero.him}
  with frightened eyes.

"Do not be afraid," ~whisper {hero}. {hero.he} ~come closer, one small step at a time.
"I will not hurt you," ~say {hero}, and ~sit down in the grass until the {patient} ~grow calm.
{hero} ~take off {hero.his} coat and ~wrap the {patient} in it, as softly as {hero.he} ~can.

"It may not live," ~say old {g}. "It may live," ~say {hero}, and {patient.care}.
With the help of old {g}, {hero} {patient.care}.
{hero} {patient.care}, just as old {g} ~have shown {hero.him}.

Every morning {hero} ~bring fresh water and ~tell the {patient} what the weather ~be like.
For two weeks the {patient} ~sleep on a blanket beside the stove, and {hero} ~sleep beside the
  blanket.
The {patient} ~eat out of {hero.his} hand, first very little, and then very much.

"You know that you can not keep it," ~say {g}. {hero} ~know it. But knowing ~do not make it easy.
"When it is well, it will want to go," ~say {g}. "I know," ~say {hero}, and ~look at the floor.

One day the {patient} ~be well again. {hero} ~open the door. It ~look back once, and then it ~be
  gone.
In spring {hero} ~take the {patient} back to the place where {hero.he} ~have found it, and ~let it
  go. {hero.his} arms ^feel
  very empty.

Months ^pass. Then, one [stormy|cold|dark] day, {patient.back}. "Help!" ~cry {hero}, but nobody
  ~hear.
The year ~go by. And then something ~happen. {patient.back}. {hero} ~be all alone and very
  frightened.

Suddenly there ~be a sound that {hero} ~know. {patient.favor}.
But somebody ~have heard {hero.him}. {patient.favor}.

"It is you!" ~cry {hero}. The {patient} ~touch {hero.his} cheek, and for a moment neither of them
  ~move.
{hero} ~look into its eyes, and they ^be no longer frightened. "You remembered me," ~whisper {hero}.
"Thank you, my friend," ~say {hero}. The {patient} ~look back twice this time before it ~go.

When {g} ~hear the story, {g} ~nod. "Kindness has a long memory," ~say {g}.
From then on {hero} ~leave a bowl of water at the gate each night, and each morning the bowl ~be
  empty.
"I thought I gave it away," {hero} ~tell {g}. "But it was only on a long loan."

{close}
""",
    ),
    "the contest": (
        "hero:child|animal+beast rival:child|animal+beast trait town contest g:elder",
        """
{hero_is}

?
{habit}

Every year {town} ~hold a {contest}, and every year {hero} only ~watch. This time {hero} ~want to
  take part.
"Tomorrow is the {contest}!" ~call the town crier of {town}. {hero} ~feel {hero.his} heart jump.
In {town} the most important day of the year ~be the {contest}. {hero} ~have waited for it for
  weeks.

{hero} ~have no money, so {hero.he} ~make {contest.make} with {hero.his} own skill.
All evening {hero} ~work at the kitchen table, and at midnight {hero.he} ~have {contest.make}.
Day after day {hero} ~work, and in the end {hero.he} ~have {contest.make}. "It is not grand," ~say
  {hero}, "but I made it myself."

A {rival.kind} named {rival} ~bring {contest.rival}. "What is that?" ~ask {rival}, and ~point at
  {hero}'s work with a grin.
Everyone ~admire {rival}, a proud {rival.kind}, who ~have {contest.rival}. Nobody ~look at {hero}.
"You will never win with that," ~say {rival}, a rich {rival.kind} who ~have {contest.rival}. {hero}
  ~blush and ~say nothing.

{advice}
"Do it for the joy of it," ~say old {g}. "Then you have already won something."

The [trumpet|whistle|bell] ~sound, and the {contest} ~begin. At first everything ~go well for
  {rival}.
And so the {contest} ~begin. {rival} ~be far ahead, and {hero} ~be nearly last.

But then {contest.trouble}. Everybody ~hold their breath.
Suddenly {contest.trouble}. "Oh!" ^cry the people of {town}.

{hero} ~think quickly. Then {hero} ~know what to do. {hero} {contest.idea}.
{hero} ~do not give up. {hero.he} ~close {hero.his} eyes and ~think of {g}. Then {hero.he}
  {contest.idea}.
"I have an idea," ~say {hero}. And {hero.he} {contest.idea}.

It ~work. In the end {contest.result}.
The people of {town} ^jump up from the benches, for {contest.result}.

"How did you do that?" ~ask {rival}. {hero} ~show {rival} everything, and they ^sit together until
  dark.
{rival} ~come over slowly. "I was unkind," ~say {rival}. "Yours was the best." And {hero} ~make room
  on the bench.
{hero} ~see {rival} standing alone, ~take the prize, which ~be a honey cake, and ~break it in two.

"Next year we will do it together," ~say {rival}. "Next year," ~say {hero}, "we will do it twice."
Old {g} ~clap the loudest of all, and ~drop {g.his} hat in the mud.
The prize, a honey cake, ~be gone by evening, but {hero} and {rival} ^remain friends for life.

{lesson_end}
{close}
""",
    ),
    "the mystery": (
        "hero:child friend:child trait town mystery",
        """
{hero_is}

?
{habit}

Something strange ~be going on in {town}. {mystery.clue}, and nobody ~know why.
{morning} {hero} ~hear the news. People in {town} ^say that {mystery.clue}.
"Have you heard?" ~ask the postman. All of {town} ~be talking about it, for {mystery.clue}.

"It is {mystery.guess}," ~say the baker, and he ~shut his windows.
Some people ^say that it ~be {mystery.guess}, and they ^stay indoors after dark.
"Perhaps it is {mystery.guess}," ~whisper the postman.

"There is always a reason," ~say {hero}. "Let us find it." {hero.his} friend {friend} ~swallow and
  ~nod.
{hero} ~take a notebook and a pencil. "We will look, and listen, and write everything down," ~say
  {hero} to {hero.his} friend {friend}.
"Are you coming?" ~ask {hero}. "I am afraid," ~say {hero.his} friend {friend}. "So am I," ~say
  {hero}. "Come on."

So {hero} and {friend} ^hide behind a barrel and ^wait. The clock ~strike, and their feet ^grow
  cold.
On the first day they ^see nothing. On the second day it ~rain. On the third day {hero} ~grip
  {friend}'s arm.
They ^search every corner of {town}. {friend} ~find a button, which ~be {friend.his} own.

Then {hero} ~kneel down. "Look," ~say {hero}. There ~be {mystery.trail}.
"Here!" ~call {friend} suddenly. There, quite clearly, ~be {mystery.trail}.
At last {hero} ~notice something. It ~be {mystery.trail}.

They ^follow the trail on tiptoe, around one corner, and then around another.
{friend} ~hold the lantern, and {hero} ~hold {friend}. Slowly they ^follow the trail.

And what ^do they see? It ~be no monster at all. It ~be {mystery.answer}.
At last they ^find the answer. It ~be {mystery.answer}.
{friend} ~want to run, but {hero} ~lift the lantern. There, in the light, ~be {mystery.answer}.

"So that is the secret," ~say {hero} softly. "We must not be angry." "We should help," ~say
  {friend}.
"Please do not tell everyone," ~beg {hero}, when {friend} ~open {friend.his} mouth. "First let us
  help."
They ^look at each other, and both ^be a little ashamed of what they ^have feared.

That same day {hero} and {friend} {mystery.kindness}.
So they ^make a plan together. They {mystery.kindness}.

And the people of {town}? They ^ask no more questions, and they ^open their windows again.
In {hero.his} notebook {hero} ~write, "A mystery is only a story that nobody has asked about."
"Were you really afraid?" ~ask {friend} on the way home. "Only until we looked," ~say {hero}.

{lesson_end}
{close}
""",
    ),
    "the impossible dream": (
        "hero:child|animal+beast trait town dream g:elder friend:child",
        """
{hero_is}

?
{habit}

{hero} ~have one great wish. {hero.he} ~want to {dream}.
More than anything in the world, {hero} ~want to {dream}.
"One day I will {dream}," {hero} ~tell everyone who ~be willing to listen.

"That is impossible," ~say {hero.his} friend {friend}. "Not yet possible," ~say {hero}, "is
  different from impossible."
The neighbors ^laugh. Only {friend}, {hero.his} best friend, ~do not laugh.
"Nobody from {town} has ever done that," ~say {hero.his} friend {friend}. "Then it is about time,"
  ~say {hero}.

So {morning} {hero} {dream.first}.
{hero} ~make a plan, and another plan, and {morning} {hero.he} {dream.first}.

{dream.failure}. "Did you hurt yourself?" ~ask {friend}. "Only my pride," ~say {hero}.
{dream.failure}. {friend} ~try not to laugh, and ~laugh.
{dream.failure}. {hero} ~sit very still, and one tear ~run down {hero.his} nose.

{advice}
"A wish is a seed," ~say old {g}. "You do not dig it up every day to see if it grows."
"Perhaps you knocked at the wrong door," ~say old {g}. "That does not mean that the house is empty."

{hero} ~think about this for a long time. {hero.he} ~work, ~wait, and ~keep {hero.his} eyes open.
So {hero} ~do not give up. Every evening {hero} ~learn a little more, and ~wish a little harder.

And then, when {hero} ~have almost stopped hoping, {dream.turn}.
And one day, quite by chance, {dream.turn}.

"This is it," ~whisper {hero}. {dream.fulfilled}.
{hero} hardly ~dare to breathe. {dream.fulfilled}.
{dream.fulfilled}. {hero} ~want to shout, but only a small and happy sound ~come out.

"Is it as you imagined it?" ~ask {friend}. "No," ~say {hero}. "It is different, and it is better."
"You were right," ~say {friend}, "and I was wrong." "Come along next time," ~say {hero}.
{hero} ~run all the way to {g}. "The house was not empty!" ~call {hero}. And {g} ~understand at
  once.

"What will you wish for now?" ~ask {g}. {hero} ~smile. "I have a list," ~say {hero}.
There ^be bigger dreams in the world, but this one ~belong to {hero}.
That evening {hero} ~lie in bed and ~go through it all again, from the beginning.

{close}
{lesson_end}
""",
    ),
    "the broken thing": (
        "hero:child g:elder trait town accident",
        """
{hero_is}

?
{habit}

{morning} something bad ~happen in the house of old {g}. {accident.how}.
{hero} often ~visit old {g}, and once there ~be an accident. {accident.how}.
{morning} {hero} ~be alone in the house of old {g}. {accident.how}.

Nobody ~have seen it. {hero} ~stand very still and ~listen to {hero.his} own heart.
"Oh no," ~whisper {hero}. "Not the {accident}!" It ~be {accident.whose} favorite thing in the world.
{hero} ~look left and ~look right. There ~be nobody there, only the {accident}, and it ~look
  terrible.

When {g} ~come home, {g.he} ~stop in the doorway. "Who did this?" ~ask {g}. "It was {accident.lie},"
  ~say {hero}.
"What happened to my {accident}?" ~ask {g}. {hero} ~hear {hero.his} own voice say, "It was
  {accident.lie}."

{g} ~believe {hero.him}. {accident.cost}.
{g} only ~nod, and that ~be the worst part. {accident.cost}.

At supper {hero} ~can not eat. The lie ~lie in {hero.his} stomach like a cold stone.
{hero} ~go to bed early, but the lie ~go to bed with {hero.him} and ~take up most of the room.
The lie ~be small in the morning, but by evening it ~be as big as a cow.

In the middle of the night {hero} ~get up and ~knock at {accident.whose} door.
At last {hero} ~can bear it no longer. {hero.he} ~run across the yard to find {g}.
Before the sun ~be up, {hero} ~be sitting on the stairs, waiting for {g} to wake.

"It was me," ~say {hero}, and then the words all ^come at once, like water through a broken dam.
"I have to tell you something," ~say {hero}. "It was not {accident.lie}. It was me, and then I
  lied."

{g} ~be quiet for so long that {hero} ~can hear the rain. "I am sad about the {accident}," ~say {g},
  "but I am glad about you."
"I know," ~say {g}. {hero} ~look up. "You knew?" "I was hoping that you would tell me," ~say {g}.
"The {accident} can be mended," ~say {g}. "Trust is harder to mend, and you have just mended it."

"Can I make it good again?" ~ask {hero}. And {hero.he} {accident.mend}.
The next day {hero} ~get up early and {accident.mend}.

It ~be not exactly as it ~have been before. {g} ~say that {g.he} ~like it better now.
When it ~be done, {g} ~look at it from all sides and ~cut two big pieces of cake.
And {hero.his} stomach ~be light again, so light that {hero} ~eat three bowls of soup.

{lesson_end}
{close}
""",
    ),
    "the gift": (
        "hero:child|animal+beast trait town gift g:elder",
        """
{hero_is}

?
{habit}

Soon it ~be the birthday of old {g}, who ~live across the road, and {g} ~need {gift.wish}.
Tomorrow ~be a special day, for old {g} ~turn eighty. {hero} ~know that {g} ~long for {gift.wish}.
{hero} ~love old {g}, who ~tell the best stories in {town}. For {g.his} birthday {hero} ~want to
  give {g.him} {gift.wish}.

There ~be {gift.price}, and it ~be perfect. {hero} ~count {hero.his} money. There ^be three small
  coins.
{hero} ~press {hero.his} nose to the glass and ~look at {gift.price}. It ~cost more than a cow.
In town {hero} ~see {gift.price}. "That will be twenty pieces of silver," ~say the shopkeeper.
  {hero} ~have only two.

{hero} ~try to earn the money. {hero.he} ~sweep the yard and ~carry wood, but after a week there ^be
  only five coins.
"Could you lend me the rest?" ~ask {hero}. But it ~have been a poor year, and nobody ~can.
{hero} ~go home with {hero.his} head down and ~kick a stone along the road.

Then {hero} ~look around the house and ~see {gift.stuff}. An idea ~come, small and bright.
That night {hero} ~lie awake. "I can not buy it," {hero.he} ~think, "but I have {gift.stuff}. And I
  have time."
On the table {hero} ~find {gift.stuff}. {hero} ~look at it for a while. Then {hero} ~begin to smile.

So {hero} {gift.make} out of {gift.stuff}.
Out of {gift.stuff}, {hero} {gift.make}.

It ~take all night, and it ~be a little crooked. {hero} ~hope that {g} ~will not notice.
It ~go wrong twice. {hero} ~begin again twice, and the third time it ~be right.
{hero} ~work until {hero.his} eyes ^fall shut, and in every part of it ~be a kind thought.

In the morning {hero} ~knock at the door of {g}. "It is not from the shop," ~say {hero}, and ~look
  at the floor.
When {g} ~open the parcel, it ~become so quiet that {hero} ~can hear the kettle.
{hero} ~hold it out with both arms. "It is only a small thing," ~say {hero}.

{g} ~turn it around and around. "Somebody made this for me," ~say {g} slowly. "For me, and for
  nobody else."
Then {g} ~begin to cry. "Do you not like it?" ~ask {hero}. "I have never liked anything so much,"
  ~say {g}.
"The one in the shop is made for anyone," ~say {g}. "But this one is made of love."

Later the shopkeeper himself ~come by and ~ask where one ~can buy such a thing. "Nowhere," ~say {g}
  proudly.
And {g} ~tell {hero} a new story that evening, the longest one of all.
And all that winter {g} ~show it to everyone who ~come to the door, even to the chimney sweep.

{lesson_end}
{close}
""",
    ),
    "the seed": (
        "hero:child|animal+beast trait town seed friend:child g:elder",
        """
{hero_is}

?
{habit}

{morning} old {g} ~give {hero} {seed}. "Look after it," ~say {g}, "and it will look after you."
{morning} {hero} ~find {seed} in the pocket of an old coat. "What will you become?" ~ask {hero}.
{morning} a traveler ~come to {town} and ~trade {seed} for a slice of {hero}'s bread.

"{seed.doubt}," ~say {hero.his} friend {friend}. "Nothing will come of it." But {hero} ~plant it
  behind the house.
{hero} ~plant it in the sunniest corner of the yard. "{seed.doubt}," ~say {friend}, and ~shake
  {friend.his} head.

Every day {hero} ~come with the watering can and ~sit down beside the little hill of earth.
{hero} ~give it water in the morning and a song in the evening. The earth ~stay bare and brown.
On the first day nothing ~happen. On the second day nothing ~happen, and it ~happen very slowly.

"Is it dead?" ~ask {hero} after a week. "It is busy," ~say {g}. "You can not see it, but it is
  busy."
{hero} ~be about to dig it up, but {g} ~hold {hero.him} back. "Some things grow only when nobody
  looks," ~say {g}.
{hero} ~become impatient and ~stamp with one foot. {g} ~laugh. "Even the sun needs a whole day,"
  ~say {g}.

Then, after a night of soft rain, there ~be a green point, no bigger than a needle.
One morning the earth ~have a crack, and out of the crack ~look something green.

{hero} ~call {friend}, and they both ^lie down on the ground to see it better.
{hero} ~shout so loudly that {friend} ~come running in {friend.his} pajamas.

But in May a hailstorm ~come. {hero} ~run out, ~put a bucket over the plant, and ~hold it down with
  both arms.
But then the snails ^come. {hero} and {friend} ^carry them away, one by one, to the far side of the
  brook.
But the summer ~be hot and dry, and the well ~be nearly empty. {hero} ~share {hero.his} own cup of
  water with the plant.

And the plant ~grow. It ~grow past {hero.his} knees, past {hero.his} ears, and past all expectation.
After that nothing ~can stop it. It ~grow while {hero} ~sleep, and it ~grow while {hero} ~eat.

By the end of summer it ~be {seed.grows}. All of {town} ~come to see it.
At last it ~stand there in the sun, {seed.grows}, and {friend} ~have nothing to say.

"I take it all back," ~say {friend}. "You only had to wait," ~say {hero}. "So did I."
"How did you do it?" ~ask {friend}. "I did almost nothing," ~say {hero}, "but I did it every day."

It ~give {seed.shared}. And {hero} ~keep one seed in {hero.his} pocket for the next year.
{hero} ~share it with everyone. It ~give {seed.shared}, and there ~be still enough left.

{close}
""",
    ),
    "the new friend": (
        "hero:child friend:child trait town thing:toy g:elder",
        """
{hero_is}

?
{habit}

{morning} a new child ~come to the school in {town}. "This is {friend}," ~say the teacher. {friend}
  ~look at {friend.his} shoes.
{morning} a wagon ~stop at the empty house. A {friend.kind} named {friend} ~climb down and ~speak to
  nobody.
In the autumn a family ~move in next door. They ^have a {friend.kind} named {friend}, who ~sit alone
  on the wall all day.

Nobody ~be unkind to {friend}, but nobody ~be kind, either. {friend} ~eat lunch alone under the
  chestnut tree.
The others ^play together, as they ^have always done, and nobody ~think of {friend}.
"{friend} is strange," ~say the others. "{friend} never says a word." {hero} ~look across the yard
  and ~wonder.

{hero} ~remember how it ~feel to be new. It ~feel like standing in the rain in front of a bright
  window.
"Perhaps nobody has asked a good question yet," ~think {hero}.
That evening {hero} ~tell old {g} about it. "A stranger," ~say {g}, "is a book with a plain cover."

The next day {hero} ~walk over. "Hello," ~say {hero}. {friend} ~say nothing. "That is all right,"
  ~say {hero}, and ~sit down.
So {hero} ~sit down beside {friend} and ~share a [pear|plum cake|bag of nuts]. They ^eat without a
  word. It ~be a good silence.
{hero} ~ask one question, and then another. {friend} only ~shake {friend.his} head, but {friend.he}
  ~do not go away.

Then {hero} ~see that {friend} ~hold something behind {friend.his} back. It ~be {thing.full}.
Out of {friend}'s bag ~fall {thing.full}. {friend} ~turn red and quickly ~pick it up.

"That is beautiful," ~say {hero}. "May I see it?" And then {friend} ~speak for the first time. "It
  was my brother's," {friend.he} ~say.
"It is {thing.from}," ~say {friend}, so softly that {hero} ~have to lean closer. "It is all I have
  from home."

{friend} ~tell {hero} about a house by a river, a brown dog, and a brother who ~be far away.
And {friend} ~begin to talk, first slowly, and then faster, until the bell ~ring and they both
  ^jump.

After school they ^go to the hill, and {friend} ~show {hero} what one ~can do with the {thing}.
"Will you show me?" ~ask {hero}. All afternoon the two of them ^try out the {thing} in the meadow.

The others ^come closer, one after another. "Can we play, too?" they ^ask. {friend} ~look at {hero},
  and then {friend.he} ~nod.
Soon half the school ~be there. {friend} ~laugh out loud, and it ~be such a funny laugh that
  everyone ~join in.

One day the {thing} ~be broken, and {hero} ~sit up half the night to mend it. {friend} never ~forget
  that.
-
-

In the evening {friend} ~wait at the gate. "Thank you for the first hello," ~say {friend}. "It was
  the hardest one," ~say {hero}.
"Do you still miss your home?" ~ask {hero}. "Yes," ~say {friend}. "But now I would miss this one,
  too."
"Why did you come over that day?" ~ask {friend}. {hero} ~think about it. "There was room beside
  you," {hero.he} ~say.

{lesson_end}
{close}
""",
    ),
    "the long way": (
        "hero:child|animal+beast friend:child|animal+beast trait town g:elder thing:toy",
        """
{hero_is}

?
{habit}

{morning} old {g} ~fall ill, and the only medicine ~be on the other side of the mountain. "I will
  go," ~say {hero}.
"Somebody must carry this letter over the mountain before dark," ~say old {g}. "I will do it," ~say
  {hero}.
One winter the well in {town} ~run dry. "High on the mountain there is a spring," ~say old {g}.
  {hero} ~take a jug and ~set out.

"I will come with you," ~say a {friend.kind} named {friend}. "It is a long way." "Then it is good
  that there are two of us," ~say {hero}.
At the gate ~wait {friend}, a {friend.kind} from next door, with two sandwiches. "You did not think
  I would let you go alone," ~say {friend}.

{g} ~give them {thing.full}. "You will know when you need it," ~say {g}.
For luck {hero} ~take along {thing.full}. It ~be {thing.from}.

?
At first the path ~be easy, and they ^sing every song they ^know. Then the songs ^run out, and the
  path ~grow steep.
They ^cross a meadow, a wood, and a field of stones. {friend} ~count the steps up to a thousand and
  ~begin again.

?
At noon they ^come to a river, and the bridge ~be gone. {hero} ~find a fallen tree, and they ^crawl
  across it, holding their breath.
Halfway up, a fog ~come down. They ^hold each other by the sleeve and ^feel for the path with their
  feet.
Where the path ~divide there ~be no sign. "The moss grows on the north side," ~say {friend}, and
  they ^turn left.

On a rock ~sit an old goat with a gray beard. "Nobody may pass," ~say the goat, "unless they give me
  something I have never seen."
Behind the last bend ~stand a tall gate, and before the gate ~sit a giant, weeping. "I am so bored,"
  ~say the giant.
At the top of the pass ~live a grumpy old troll. "Go away," ~say the troll. "Nobody ever brings me
  anything."

{hero} ~look at {friend}, and {friend} ~look at {hero}. Then {hero} ~take out the {thing} and ~show
  how it ~work.
{hero} ~think of the words of {g}. It ~be hard to give the {thing} away, but {hero} ~hold it out.

A smile ~spread slowly over the old face, like the sun over a field. "For me?" ~ask a deep voice,
  and the way ~be free.
There ~be a long silence, and then a deep laugh ~roll down the mountain. "Pass," ~say the voice,
  "and come back soon."

?
So they ^reach the other side before dark, and everything ~be done as it ~have to be done.
The stars ^be already out when they ^reach the place. {hero}'s feet ^hurt, but {hero.his} heart ~be
  light.

?
On the way home {friend} ~be so tired that {hero} ~tell {friend.him} a story at every bend to keep
  {friend.him} awake.
The way home ~be shorter, as ways home always ^be.

"You did it!" ~cry {g} at the gate. "We did it," ~say {hero}, and ~take {friend} by the arm.
{g} ~be waiting with a pot of soup. "Were you afraid?" ~ask {g}. "Yes," ~say {hero}, "but never both
  of us at once."
"And the {thing}?" ~ask {g}. "Somebody needed it more," ~say {hero}. And {g} ~smile, as if {g.he}
  ~have known it all along.

{lesson_end}
{close}
""",
    ),
}
