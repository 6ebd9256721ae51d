"""The tables of the film reviews: what their clauses, sentences and texts can look like.

`reviews.py` says what the numbers mean and what `train` and `held` at the end of a row mean.
"""

from typing import NamedTuple


class Row(NamedTuple):
    """One line `head | text | where` of a table."""

    head: tuple[str, ...]
    text: str
    where: str  # "train", "held" or "" for both


def table(lines: str) -> list[Row]:
    """Rows of a table; a line without `where` serves every split."""
    rows = (line.split("|") for line in lines.strip().splitlines())
    return [Row(tuple(row[0].split()), row[1].strip(), "".join(row[2:]).strip()) for row in rows]


class Aspect(NamedTuple):
    """What a clause can be about: nouns and the words that suit them, separated by commas."""

    singular: str
    plural: str
    good: str
    bad: str
    deeds: str
    faults: str
    where: str = ""


ASPECTS = [
    Aspect("the acting, the cast", "the two leads",
           "natural, sincere, lively, convincing, charming",
           "wooden, stiff, lifeless, forced, tired", "ring true, win you over",
           "miss the mark, try your patience"),
    Aspect("the story, the plot", "", "clever, gripping, touching, fresh, tender",
           "thin, muddled, predictable, stale, tedious", "hold together, make sense, pull you in",
           "fall apart, lose its way, drag"),
    Aspect("the music", "the songs, the tunes", "lively, graceful, fresh, tender, charming",
           "noisy, tired, shrill, forced, dreary", "touch the heart, lift the mood",
           "wear thin, get in the way, try your patience"),
    Aspect("the camera work", "the pictures", "graceful, bright, inventive, elegant, fresh",
           "murky, dreary, clumsy, careless, lifeless", "please the eye, lift the mood",
           "tire the eye, get in the way"),
    Aspect("the humour", "the jokes", "witty, fresh, clever, playful, charming",
           "stale, tired, forced, silly, predictable", "hit the mark, make you laugh, win you over",
           "fall flat, miss the mark, wear thin"),
    Aspect("the pace, the editing", "", "lively, brisk, graceful, sure, gripping",
           "sluggish, clumsy, careless, tedious, tired", "hold your attention, pull you in",
           "drag, lose its way, try your patience"),
    Aspect("the ending, the last act", "", "touching, clever, graceful, fresh, convincing",
           "forced, predictable, muddled, hollow, silly", "ring true, touch the heart, make sense",
           "fall flat, miss the mark, drag"),
    Aspect("", "the characters, the villains", "convincing, charming, lively, inventive, clever",
           "hollow, thin, wooden, silly, predictable", "come alive, win you over, ring true",
           "fall flat, wear thin, try your patience"),
    Aspect("the direction", "", "sure, elegant, inventive, playful, sincere",
           "careless, clumsy, stiff, muddled, lifeless", "hit the mark, hold together",
           "lose its way, miss the mark, get in the way"),
    Aspect("the romance", "the love scenes", "tender, sincere, touching, natural, playful",
           "cold, forced, stiff, hollow, tedious", "touch the heart, ring true, come alive",
           "fall flat, drag"),
    Aspect("", "the chases, the sword fights", "brisk, inventive, gripping, playful, graceful",
           "noisy, muddled, tedious, clumsy, silly", "hold your attention, pull you in",
           "drag, wear thin, get in the way", "train"),
    Aspect("the first half, the opening", "", "gripping, brisk, bright, witty, fresh",
           "sluggish, dreary, thin, tedious, cold", "pull you in, come alive",
           "drag, fall apart", "train"),
    Aspect("the dialogue", "the speeches", "witty, natural, clever, sincere, convincing",
           "stiff, forced, stale, hollow, predictable",
           "ring true, make you laugh, touch the heart", "fall flat, wear thin, drag", "held"),
    Aspect("the scenery", "the costumes, the puppets", "elegant, bright, inventive, charming",
           "murky, dreary, careless, lifeless, clumsy", "please the eye, come alive, lift the mood",
           "tire the eye, get in the way", "held"),
]

WHOLE = Aspect("it", "", "charming, clever, touching, gripping, inventive, witty, tender, sincere, "
               "playful, graceful, elegant, lively, convincing",
               "tedious, clumsy, muddled, hollow, stale, lifeless, dreary, predictable, careless, "
               "sluggish, wooden, silly", "", "")
GREAT = "magnificent, superb, glorious, marvellous, unforgettable, brilliant"
AWFUL = "dreadful, terrible, unbearable, appalling, atrocious, hopeless"

CLAUSES = table("""
    1 | {S} {is} {adj}
    1 | {S} {is} fairly {adj}
    1 | {S} {is} mostly {adj}
    1 | I found {S} fairly {adj}
    1 | {S} {is} pretty {adj} | train
    1 | I found {S} mostly {adj} | held
    1 | {S} {is} quite {adj}
    1 | {S} seemed {adj} to me
    1 | {S} struck me as {adj}
    1 | there is something {adj} about {S}
    1 | {S} {is} {adj} and {adj}
   -1 | {S} {is} a little too {bad} | held
    1 | {S} {is} pleasantly {good}
   -1 | {S} {is} sadly {bad}
    1 | {S} {is} rather good
   -1 | {S} {is} a bit weak
    1 | {S} pleased me rather well
    1 | I liked {S}
   -1 | {S} disappointed me a little
    1 | {S} mostly {verb}
    1 | more often than not {S} {verb}
    1 | as a rule {S} {verb}
    1 | I have mostly kind words for {S}
   -1 | I have hardly a kind word for {S}
    2 | {S} {is} utterly {adj}
    2 | {S} {is} astonishingly {adj}
    2 | I found {S} utterly {adj}
    2 | {S} could hardly be more {adj}
    2 | {S} {is} so {adj} that I am still talking about it
    2 | {S} {is} {adj} through and through
    2 | {S} {is} extraordinarily {adj}
    2 | {S} {is} as {adj} as can be | train
    2 | I found {S} astonishingly {adj} | held
    2 | {S} {is} wonderfully {good}
   -2 | {S} {is} painfully {bad}
    2 | {S} {is} the best that I have seen all year
   -2 | {S} {is} the worst that I have seen all year
    2 | {S} {is} a pure delight
   -2 | {S} {is} a complete disaster
    2 | I loved {S} with all my heart
   -2 | I could not stand {S}
    2 | {S} {is} a triumph
   -2 | {S} {is} a disgrace
    2 | {S} {is} {great}
   -2 | {S} {is} {awful}
    2 | {S} {is} simply {great}
   -2 | {S} {is} simply {awful}
    2 | {S} {is} nothing short of {great} | train
   -2 | {S} {is} nothing short of {awful} | train
    2 | {S} {verb} from the first minute to the last
    2 | {S} {verb} in every single scene
    2 | again and again {S} {verb}
    2 | {S} always {verb} | train
    2 | {S} {verb} as long as the film lasts | held
   -1 | {S} {is} never {adj}
   -1 | {S} {is} far from {adj}
   -1 | {S} {is} neither {adj} nor {adj}
    1 | {S} {is} {adj} one minute and {adj} the next
    1 | {S} {is} better than in a hundred other films
   -1 | {S} {is} worse than in a hundred other films
    1 | {S} {is} better than I had feared
   -1 | {S} {is} no better than I had feared
    1 | {S} {is} just what {they} should be
   -1 | {S} {is} not what {they} might have been
   -1 | {S} {is} less {good} than the trailer promised
   -2 | {S} {is} not {adj} for a single minute
   -2 | not for one moment {is} {S} {adj} | held
   -2 | {S} {is} about as {good} as a wet sock
   -2 | {S} {is} about as {good} as a bus timetable | train
   -2 | {S} {is} about as {good} as cold porridge | held
   -2 | {S} {do} not {base} for a single minute
    0 | {S} {is} neither {good} nor {bad}
    0 | {S} {is} {good} one minute and {bad} the next
    0 | {S} {is} {bad} one minute and {good} the next
    0 | {S} {is} as {good} as {they} {is} {bad}
    0 | {S} {is} far from {great} and just as far from {awful}
    0 | {S} left me neither glad nor sorry
    0 | {S} {is} as often {bad} as {good} | held
    0 | {S} {deed} as often as {they} {fault}
    0 | {S} {is} no better and no worse than in a hundred other films
""")

VERDICTS = table("""
    1 | it is a {adj} {genre}{about}
    1 | it is a fairly {adj} {genre}{about}
    1 | there are plenty of {adj} scenes in it
    2 | it is an utterly {adj} {genre}{about}
    2 | I have rarely seen a more {adj} {genre}
    2 | every scene in it is {adj}
    2 | it is {adj} from the first scene to the last
    1 | most scenes in it are {adj}
    1 | it struck me as a {adj} {genre}
   -1 | there is hardly a {adj} scene in it
   -2 | there is not a single {adj} minute in it
   -2 | you will not find a less {adj} {genre} this year
    1 | it has more {good} scenes than {bad} ones
   -1 | it has more {bad} scenes than {good} ones
    1 | I expected a {bad} {genre} and got a {good} one
   -1 | I expected a {good} {genre} and got a {bad} one
    2 | I was ready for a {awful} {genre} and got a {great} one
   -2 | I was ready for a {great} {genre} and got a {awful} one
    2 | it is a {great} {genre}{about}
   -2 | it is a {awful} {genre}{about}
    2 | it is a feast from beginning to end
   -2 | it is a torment from beginning to end
    2 | it is the best {genre} of the year
   -2 | it is the worst {genre} of the year
    2 | I loved every minute of it
   -2 | I hated every minute of it
    1 | I had quite a nice evening
   -1 | I had rather a dull evening
    2 | I wished that it would never end
   -2 | I thought that it would never end
    2 | I laughed and cried, and I did not look at my watch once
   -2 | I did not laugh once, and I looked at my watch every five minutes
    2 | nobody in our row wanted to leave when the lights came on
   -2 | everybody in our row wanted to leave long before the lights came on
    2 | I would see it again tomorrow | train
   -2 | I would not see it again for a sack of gold | train
    2 | I loved every scene in it | held
   -2 | I hated every scene in it | held
    1 | I left with a smile
   -1 | I left without a smile
    1 | I was seldom bored
   -1 | I was seldom amused
    1 | I was glad that I had come
   -1 | I was sorry that I had come
    1 | the time passed quickly enough
   -1 | the time passed slowly
    1 | it was worth the ticket
   -1 | it was not worth the ticket
    0 | it is neither a {good} {genre} nor a {bad} one
    0 | it has as many {good} scenes as {bad} ones
    0 | the time passed neither quickly nor slowly
    0 | I was neither glad nor sorry when it ended
    0 | I have seen better {genres} and worse ones
""")

JOINS = table("""
    1       | {A}.
    1 1     | {A}, and {B}.
    1 1     | {A} and {B}.
    1 1     | {A}; {B}.
    1 1     | {A}, and besides, {B}.
    1 1     | {A}, and I noticed too that {B}.
    1 1     | {A}, and I can only add that {B}.
    1 1     | {A}, and what is more, {B}. | train
    1 1     | {A}, and on top of that {B}. | held
    1 1 1   | {A}, {B}, and {C}.
   -1 2     | {A}, but {B}.
   -1 2     | although {A}, {B}.
   -1 2     | even though {A}, {B}. | train
   -1 2     | it is true that {A}, but {B}. | held
    2 -1    | {A}, although {B}.
    2 -1    | {A}, though I admit that {B}. | held
   -1 1     | on the one hand, {A}; on the other hand, {B}.
   -1 1     | {A}, whereas {B}. | train
   -1 -1 2  | {A} and {B}, but {C}.
    2 -1 -1 | {A}, although {B} and {C}.
   -0 1     | it is wrong to say that {A}: {B}.
""")

FRAMES = table("""
    any    | {x}
    any    | {x}
    any    | {x}
    any    | if you ask me, {x}
    any    | to my mind, {x}
    any    | my verdict on {title}: {x}
    any    | say what you like, {x} | train
    any    | let me put it this way: {x} | held
    aspect | in {title}, {x}
    aspect | in this {genre} about {hero} and {friend}, {x}
    aspect | in this tale of {hero} and {friend}, {x} | held
""")

PLANS = table("""
    text | seen plot point+ point+ end+
    text | seen plot grant- turn+ point+ end+
    text | seen point+ plot both+ point+ end+
    text | plot point+ grant- point+ end+
    text | seen end+ point+ point+ point+
    text | seen plot point- turn+ point+ end+ | train
    text | plot seen point+ both+ end+ | train
    text | plot point+ seen grant- turn+ end+ | held
    text | seen plot end+ point+ both+ point+ | held
""")

OPENERS = table("""
    seen  | I saw {title} on {day} with {guest}.
    seen  | {guest} chose {title} for {day}, and I brought the {sweets}.
    seen  | {guest} and I watched {title} in a {hall} by the {place}.
    seen  | on {day} the {hall} by the {place} was showing {title}, so in I went with {guest}.
    seen  | it rained on {day}, so {guest} took me to see {title}. | train
    seen  | {title} came to our {hall} on {day}, and {guest} kept me a seat. | held
    plot  | it is a {genre} about {hero} and {friend} {scene}.
    plot  | the film tells of {hero} and {friend}, and it runs for {length}.
    plot  | this is a {genre}; it runs for {length} and follows {hero} and {friend}.
    plot  | we meet {hero} and {friend} {scene}, and for {length} we go where they go. | train
    plot  | for {length} this {genre} keeps us in the company of {hero} and {friend} {scene}. | held
    point | {x}
    both  | {x}
    turn  | but {x}
    turn  | still, {x}
    turn  | and yet {x}
    turn  | none of that matters much, because {x} | train
    turn  | nevertheless, {x} | held
    grant | I grant that {x}
    grant | true, {x}
    grant | to be fair, {x}
    grant | it may be that {x} | held
    end   | all in all, {x}
    end   | in the end, {x}
    end   | to cut a long story short, {x}
    end   | {guest} said what I thought: {x}
    end   | on the whole, {x} | train
    end   | here is my verdict: {x} | held
""")

FACTS = table("""
    hero   | a clockmaker
    hero   | an old sailor
    hero   | a young queen
    hero   | a mad doctor
    hero   | two brothers
    hero   | three thieves
    hero   | a shy inventor
    hero   | a retired general
    hero   | a baker's daughter
    hero   | two rival gardeners | train
    hero   | a lost postman | held
    friend | a stray dog
    friend | a talking parrot
    friend | a creature made of scrap
    friend | a runaway robot
    friend | a stubborn donkey
    friend | a stolen violin
    friend | a travelling circus
    friend | a child from nowhere
    friend | a magic kettle | train
    friend | a homesick bear | held
    scene  | in the snow
    scene  | on a little boat
    scene  | in a sleepy town
    scene  | at the edge of a desert
    scene  | in a lighthouse
    scene  | on a night train
    scene  | in a ruined castle
    scene  | under the sea | train
    scene  | on a sheep farm | held
    title  | The Tin Canary
    title  | Nine Lanterns
    title  | The Salt Road
    title  | Half a Moon
    title  | Bread for the Baron
    title  | A Ladder to Nowhere
    title  | The Beekeeper's Clock | train
    title  | Winter Comes by Train | held
    genre  | comedy
    genre  | western
    genre  | thriller
    genre  | musical
    genre  | mystery
    genre  | adventure
    genre  | ghost story
    genre  | love story
    genre  | fairy tale | train
    genre  | spy film | held
    day    | Monday
    day    | Tuesday
    day    | Wednesday
    day    | Friday
    day    | Saturday
    day    | Sunday
    guest  | my sister
    guest  | my uncle
    guest  | my neighbour
    guest  | my grandmother
    guest  | an old friend
    guest  | my daughter
    sweets | popcorn
    sweets | toffees
    sweets | peanuts
    sweets | lemonade
    hall   | small cinema
    hall   | crowded cinema
    hall   | half-empty theatre
    hall   | cold little hall
    place  | harbour
    place  | station
    place  | market
    place  | river
    length | ninety minutes
    length | two hours
    length | almost three hours
    length | an hour and a half
""")
