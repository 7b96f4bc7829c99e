//! Plots of looking for something and finding it.

use super::{Beat, HABIT, INTRODUCTION, Plot, always, sometimes};
use crate::stories::cast::Who;

/// A beloved thing is lost; a friend helps to think where it was last seen.
pub const LOST: Plot = Plot {
    who: Who::Anyone,
    props: &[
        &[
            ("look", "[red|green|striped|soft blue]"),
            ("thing", "scarf"),
            ("gift", "Grandma had knitted it for {him} last winter"),
        ],
        &[
            ("look", "[red|yellow|shiny|big orange]"),
            ("thing", "ball"),
            ("gift", "It could bounce higher than the fence"),
        ],
        &[
            ("look", "[brown|small|old|fluffy]"),
            ("thing", "teddy bear"),
            ("gift", "{He} hugged it every night until {he} fell asleep"),
        ],
        &[
            ("look", "[silver|little|wooden|blue]"),
            ("thing", "whistle"),
            ("gift", "It sang like a bird when {he} blew it"),
        ],
        &[
            ("look", "[new|thick|old|blue]"),
            ("thing", "book"),
            ("gift", "It was full of pictures of ships and whales"),
        ],
        &[
            ("look", "[little|red|wooden|shiny]"),
            ("thing", "toy train"),
            ("gift", "Its wheels went click, clack, click"),
        ],
        &[
            ("look", "[straw|yellow|floppy|blue]"),
            ("thing", "hat"),
            ("gift", "It kept the sun out of {his} eyes"),
        ],
        &[
            ("look", "[small|silver|round|bright]"),
            ("thing", "bell"),
            ("gift", "It rang softly with every step {he} took"),
        ],
    ],
    paragraphs: &[
        &[
            INTRODUCTION,
            HABIT,
            always(&[
                "{He} had {a look} {thing}. {Gift}, and {hero} took it everywhere.",
                "The thing {he} loved most was {his} {look} {thing}. {Gift}.",
                "On {his} birthday {he} had been given {a look} {thing}. {Gift}.",
            ]),
        ],
        &[
            always(&[
                "One {weather} {time}, {hero} went to {place} to play. {Sky} {He} ran and jumped and rolled in the grass.",
                "One {weather} {time}, {hero} was playing {in}. {Sight} {He} ran here and there until {he} was out of breath.",
                "One {weather} {time}, {hero} took the {thing} to {place}. {Sky} {Sight}",
            ]),
            always(&[
                "But when it was time to go home, the {thing} was gone.",
                "Then {he} reached for the {thing}, and it was not there!",
                "But when {he} looked for the {thing}, {he} could not see it anywhere.",
            ]),
            always(&[
                "\"Oh no! Where is my {thing}?\" cried {hero}.",
                "\"My {thing}!\" {hero} cried. \"I have lost my {look} {thing}!\"",
                "{Hero}'s eyes filled with tears. \"It was here a moment ago,\" {he} said.",
            ]),
        ],
        &[
            sometimes(
                60,
                &[
                    "{He} looked {spot}, but there was only [a snail|an old leaf|a feather|a grey stone]. {He} looked {spot2}, but the {thing} was not there either.",
                    "First {he} looked {spot}. Then {he} looked {spot2}. There was no {thing} to be found.",
                ],
            ),
            always(&[
                "Just then, {his} friend {friend} came by. \"Why are you so sad?\" asked {friend}.",
                "{His} friend {friend} saw {him} and came running. \"What is the matter?\" {friend.he} asked.",
                "{A friend.kind} named {friend} heard {him} and stopped. \"Can I help you?\" {friend.he} asked.",
            ]),
            always(&[
                "\"I have lost my {thing},\" said {hero}. \"Then let us think,\" said {friend}. \"Where did you rest?\"",
                "{Hero} told {friend.him} about the {thing}. \"Do not worry,\" said {friend}. \"Where were you when you had it last?\"",
            ]),
            always(&[
                "{Hero} closed {his} eyes and thought hard. \"I sat down {spot3} to [eat an apple|rest my feet|watch a butterfly],\" {he} said slowly.",
                "{Hero} thought about it. \"I stopped {spot3} to [look at a beetle|drink some water|catch my breath],\" {he} said.",
            ]),
        ],
        &[
            always(&[
                "They ran there as fast as they could. And there it was! The {look} {thing} lay {spot3}, a little dusty but safe.",
                "They hurried back together. {Friend} pointed and laughed, for the {look} {thing} was lying {spot3}.",
                "Hand in hand they went to look. {Spot3} lay the {look} {thing}, just where {hero} had left it.",
            ]),
            sometimes(
                50,
                &[
                    "{Hero} hugged the {thing} tightly. \"Thank you, {friend}!\" {he} said.",
                    "\"You found it!\" shouted {hero}, and {he} danced with joy.",
                    "{Hero} was so happy that {he} gave {friend} a big hug.",
                ],
            ),
            sometimes(
                35,
                &[
                    "\"Four eyes see more than two,\" said {friend} with a smile.",
                    "\"It is easier to look when you stay calm,\" said {friend}.",
                    "\"I am glad I could help,\" said {friend}.",
                ],
            ),
            always(&[
                "From that day on, {hero} always looked for the {thing} before {he} went home.",
                "After that, {hero} took good care of the {thing} and never left it behind again.",
                "{Hero} had learned that a problem feels smaller when a friend helps.",
                "They walked home side by side, and {hero} held the {thing} all the way.",
            ]),
        ],
    ],
};

/// The hero follows something, gets lost, and finds the way back by keeping calm.
pub const WRONG_TURN: Plot = Plot {
    who: Who::Anyone,
    props: &[
        &[("lure", "butterfly"), ("lure.look", "blue"), ("lure.did", "fluttered from flower to flower")],
        &[
            ("lure", "dragonfly"),
            ("lure.look", "green"),
            ("lure.did", "flew a little way and waited, and flew on again"),
        ],
        &[("lure", "frog"), ("lure.look", "tiny"), ("lure.did", "hopped from one puddle to the next")],
        &[
            ("lure", "bird"),
            ("lure.look", "yellow"),
            ("lure.did", "sang a song and flew from branch to branch"),
        ],
        &[("lure", "leaf"), ("lure.look", "golden"), ("lure.did", "danced along the path in the wind")],
    ],
    paragraphs: &[
        &[
            INTRODUCTION,
            HABIT,
            always(&[
                "\"Stay where you can see the house,\" {elder} always said.",
                "\"Do not go too far,\" {elder} told {him} every morning.",
            ]),
        ],
        &[
            always(&[
                "One {weather} {time}, {hero} saw {a lure.look} {lure}. It {lure.did}, and {hero} ran after it.",
                "One {weather} {time}, {a lure.look} {lure} came past the gate. It {lure.did}. \"Wait for me!\" called {hero}, and {he} followed it.",
            ]),
            always(&[
                "{He} went over the bridge and round the hill, and on and on. At last the {lure} was gone, and {hero} looked around. {He} did not know this place at all.",
                "{He} ran past the mill and between the tall trees. When {he} stopped, the {lure} had gone, and every path looked the same.",
            ]),
            sometimes(
                50,
                &[
                    "\"I am lost,\" {he} whispered, and {his} heart began to beat fast.",
                    "\"Which way is home?\" {he} asked, but nobody was there to answer.",
                    "{He} sat down on a stone and felt very small.",
                ],
            ),
        ],
        &[
            always(&[
                "{He} wanted to cry. Then {he} remembered what {elder} had taught {him}. \"If you are lost, stop and listen.\"",
                "{He} took a deep breath. \"{Elder} says that running makes it worse,\" {he} told {himself}. \"First I must look and listen.\"",
            ]),
            always(&[
                "So {hero} sat very still. Far away, {he} heard [the bell of the village|the water of the mill|a dog that barked at the farm]. {He} knew that sound! {He} walked towards it, step by step.",
                "So {hero} climbed onto a big rock and looked around. Behind the trees, thin grey smoke rose from a chimney. \"That is our chimney!\" {he} said, and {he} walked straight towards it.",
                "So {hero} looked at the ground. There were {his} own small footprints in the soft earth. {He} followed them back, one after the other.",
            ]),
        ],
        &[
            always(&[
                "Before long {he} saw the gate, and {elder} was standing beside it. \"There you are!\" cried {elder}. \"I was so worried.\"",
                "Soon {he} came to the lane {he} knew. {Elder} ran to meet {him} and held {him} tight.",
                "{His} friend {friend} was at the bridge, calling {his} name. \"{Hero}! We have looked for you everywhere!\" said {friend}.",
            ]),
            sometimes(
                40,
                &[
                    "\"I am sorry,\" said {hero}. \"I followed {a lure}, and then I was lost. But I stayed calm, and I found the way back.\"",
                    "\"I went too far,\" said {hero}. \"I will not do it again.\"",
                ],
            ),
            always(&[
                "That evening they drank warm milk by the fire, and home had never felt so good.",
                "{Hero} still liked to explore, but from then on {he} always told someone where {he} was going.",
                "{Hero} had learned that a calm head finds the way.",
            ]),
        ],
    ],
};

/// The hero thinks that everyone has forgotten a birthday.
pub const SURPRISE: Plot = Plot {
    who: Who::Anyone,
    props: &[
        &[("gift", "a kite with a long tail"), ("use", "hung it over {his} bed to wait for a windy day")],
        &[("gift", "a box of paints"), ("use", "painted a picture of all {his} friends")],
        &[("gift", "a little wooden boat"), ("use", "sailed it in the tub until bedtime")],
        &[("gift", "a drum with red strings"), ("use", "played it while everybody danced")],
        &[("gift", "a pair of warm boots"), ("use", "wore them all evening, even indoors")],
        &[
            ("gift", "a swing made of rope and wood"),
            ("use", "sat on it in the light of the lanterns until bedtime"),
        ],
    ],
    paragraphs: &[
        &[INTRODUCTION, HABIT, BIRTHDAY_MORNING],
        &[
            always(&[
                "But nobody said a word about it. {Elder} was busy in the kitchen and only said, \"Please go and play outside.\"",
                "But {elder} only said, \"Good morning,\" and went on sweeping the floor.",
                "But at breakfast {elder} talked about the weather and nothing else.",
            ]),
            always(&[
                "{Hero} went to see {his} friend {friend}. \"I cannot play today,\" said {friend}, and {friend.he} shut the door quickly.",
                "{Hero} met {his} friend {friend} in the lane. {Friend} hid something behind {friend.his} back and ran away.",
            ]),
            always(&[
                "\"They have all forgotten,\" thought {hero}. {He} sat {spot} and [kicked at the stones|watched the clouds go by|felt very lonely].",
                "{Hero} walked slowly to {place}. {Sky} But {he} could not enjoy it. \"Nobody remembers my birthday,\" {he} sighed.",
            ]),
        ],
        &[
            always(&[
                "When the light began to fade, {hero} went home. The house was dark and quiet. {He} opened the door.",
                "In the evening {he} heard {elder} call. {He} walked home slowly and pushed the door open.",
            ]),
            always(&[
                "\"Surprise!\" shouted everyone. There were lanterns on the walls, and a big cake stood on the table.",
                "\"Happy birthday!\" cried {elder} and {friend} together. The room was full of paper stars, and there was a cake with honey.",
            ]),
            sometimes(
                60,
                &[
                    "{Hero} could not believe {his} eyes. \"You did not forget!\" {he} said.",
                    "{Hero}'s mouth fell open, and then {he} began to laugh. \"So that is why you were all so strange!\" {he} said.",
                ],
            ),
            sometimes(
                35,
                &[
                    "\"How could we forget you?\" said {elder}. \"We only wanted to keep the secret.\"",
                    "\"It was so hard not to tell you,\" said {friend}.",
                ],
            ),
        ],
        &[
            always(&[
                "{Friend} gave {him} {gift}. {Hero} was delighted. {He} {use}.",
                "Then {hero} opened {his} present. It was {gift}! {He} thanked them all, and {he} {use}.",
            ]),
            sometimes(
                75,
                &[
                    "When {he} lay in bed that night, {he} was still smiling.",
                    "It was the best birthday {he} had ever had.",
                    "{Hero} learned that people may think of us even when they do not show it.",
                ],
            ),
        ],
    ],
};

const BIRTHDAY_MORNING: Beat = always(&[
    "One {weather} morning, {he} woke up early and jumped out of bed. It was {his} birthday!",
    "One {weather} morning, {hero} opened {his} eyes and remembered that it was {his} birthday. {He} ran to the kitchen.",
]);
