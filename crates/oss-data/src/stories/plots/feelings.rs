//! Plots of telling the truth, making up and sharing.

use super::{HABIT, INTRODUCTION, Plot, always, sometimes};
use crate::stories::cast::Who;

/// Something is broken, and it takes courage to say so.
pub const BROKEN: Plot = Plot {
    who: Who::Anyone,
    props: &[
        &[
            ("thing", "vase"),
            ("look", "blue"),
            (
                "how",
                "{He} was running through the kitchen when {he} bumped into the table. The vase fell, and it broke into three pieces.",
            ),
            ("amend", "They glued it together, and put it back with a fresh flower in it."),
        ],
        &[
            ("thing", "window"),
            ("look", "round"),
            (
                "how",
                "{He} kicked {his} ball too hard. It flew over the fence, and the window broke with a crash.",
            ),
            ("amend", "{Hero} helped to sweep up the glass and to put in a new pane."),
        ],
        &[
            ("thing", "cup"),
            ("look", "favourite"),
            (
                "how",
                "{He} wanted to look at the cup more closely. It slipped out of {his} hands, and the handle broke off.",
            ),
            ("amend", "They stuck the handle back on with glue, and it held."),
        ],
        &[
            ("thing", "flowerpot"),
            ("look", "painted"),
            (
                "how",
                "{He} was spinning round and round with {his} eyes shut. {He} knocked against the flowerpot, and it cracked.",
            ),
            ("amend", "Together they put the plant into a new pot, and {hero} painted a sun on it."),
        ],
        &[
            ("thing", "lamp"),
            ("look", "old"),
            (
                "how",
                "{He} threw a pillow across the room, just for fun. It hit the lamp, and the glass broke.",
            ),
            ("amend", "{Hero} used the coins from {his} money box to help to buy a new glass."),
        ],
    ],
    paragraphs: &[
        &[
            INTRODUCTION,
            HABIT,
            always(&[
                "At home there was {a look} {thing} that {elder} loved very much.",
                "{Elder} had {a look} {thing} and took good care of it.",
            ]),
        ],
        &[
            always(&[
                "One {weather} {time}, {hero} was alone for a moment. {How}",
                "It happened on {a weather} {time}. {How}",
            ]),
            always(&[
                "{Hero} stood very still. Nobody had seen it.",
                "\"Oh no,\" whispered {hero}. {He} felt hot and cold at once.",
            ]),
            sometimes(
                55,
                &[
                    "{He} thought, \"I could say that it was the cat.\" But {his} tummy hurt when {he} thought of it.",
                    "{He} hid behind the door and hoped that nobody would ask.",
                    "{He} wanted to run away, but {his} feet would not move.",
                ],
            ),
        ],
        &[
            always(&[
                "Soon {elder} came in and saw the broken {thing}. \"What happened here?\" {elder.he} asked.",
                "Then {he} heard steps. \"Does anyone know what happened to the {thing}?\" asked {elder}.",
            ]),
            sometimes(
                35,
                &[
                    "{Hero} looked at the floor.",
                    "For a moment it was very quiet.",
                    "{Hero} opened {his} mouth and closed it again.",
                ],
            ),
            always(&[
                "\"It was me,\" {hero} said at last. \"I broke it. I did not mean to, and I am sorry.\"",
                "Then {hero} stepped forward. \"I did it,\" {he} said in a small voice. \"I was not careful. I am very sorry.\"",
            ]),
            sometimes(
                85,
                &[
                    "{Elder} was silent, and then {elder.he} took {hero}'s hand. \"I am sad about the {thing},\" {elder.he} said, \"but I am proud that you told me the truth.\"",
                    "{Elder} knelt down. \"Thank you for telling me,\" said {elder}. \"That was hard, and you did it. {A thing} can be mended, but trust is hard to mend.\"",
                ],
            ),
        ],
        &[
            always(&["{Amend}"]),
            sometimes(
                45,
                &[
                    "{Hero} felt as light as a feather.",
                    "The knot in {hero}'s tummy was gone.",
                    "{Hero} gave {elder} a long hug.",
                ],
            ),
            always(&[
                "{Hero} had learned that the truth may be hard to say, but it makes the heart light.",
                "\"Next time I will be more careful,\" {hero} promised, and {he} was.",
                "After that, {hero} walked slowly when {he} was indoors, and {he} always told the truth.",
            ]),
        ],
    ],
};

/// Two friends quarrel over a thing and make up.
pub const QUARREL: Plot = Plot {
    who: Who::Anyone,
    props: &[
        &[
            ("thing", "swing"),
            ("doing", "swinging"),
            ("deal", "One of them pushed while the other one swung, and then they changed places."),
            ("gain", "With somebody to push, the swing went twice as high."),
        ],
        &[
            ("thing", "red crayon"),
            ("doing", "drawing"),
            ("deal", "They drew one big picture together, and each of them did half of the red roof."),
            ("gain", "It was the finest house that they had ever drawn."),
        ],
        &[
            ("weather", "snowy"),
            ("thing", "sledge"),
            ("doing", "sledging"),
            ("deal", "They sat on the sledge together, one in front and one behind."),
            ("gain", "With two riders, the sledge went down the hill like the wind."),
        ],
        &[
            ("thing", "big drum"),
            ("doing", "drumming"),
            ("deal", "One of them beat the drum while the other one danced, and then they changed places."),
            ("gain", "It was much more fun than drumming alone."),
        ],
        &[
            ("thing", "wheelbarrow"),
            ("doing", "playing"),
            (
                "deal",
                "One of them sat in the wheelbarrow while the other one pushed, and then it was the other way round.",
            ),
            ("gain", "They laughed so much that they nearly fell over."),
        ],
        &[
            ("thing", "bucket"),
            ("doing", "digging"),
            ("deal", "One of them carried water in the bucket while the other one built the walls."),
            ("gain", "By noon they had a castle with four towers and a moat."),
        ],
    ],
    paragraphs: &[
        &[
            INTRODUCTION,
            always(&[
                "{His} best friend was {a friend.kind} named {friend}, and they did everything together.",
                "{Hero} and {his} friend {friend} played together every day.",
            ]),
        ],
        &[
            always(&[
                "One {weather} {time}, they both wanted the {thing} at the same time. \"I saw it first!\" said {hero}. \"No, it is my turn!\" said {friend}.",
                "But one {weather} {time}, there was only one {thing}, and both of them wanted it. \"Give it to me!\" shouted {friend}. \"No!\" shouted {hero}.",
            ]),
            always(&[
                "They pulled and pushed until they were both angry. \"You are not my friend any more!\" cried {hero}.",
                "{Hero} stamped {his} foot. {Friend} turned {friend.his} back. \"Then I will play by myself,\" {friend.he} said, and {friend.he} walked away.",
            ]),
            always(&[
                "Now {hero} had the {thing} all to {himself}. But {doing} alone was no fun at all.",
                "At last {hero} could have the {thing}, but {he} only sat and looked at it. It was very quiet.",
            ]),
        ],
        &[
            sometimes(
                45,
                &[
                    "\"Why are you alone?\" asked {elder}. {Hero} told {elder.him} everything. \"Which do you like more,\" asked {elder}, \"the {thing} or {friend}?\"",
                    "{Elder} sat down beside {him}. \"{A thing} cannot laugh with you,\" {elder.he} said.",
                ],
            ),
            always(&[
                "{Hero} thought about it for a while. Then {he} went to find {friend}, who was sitting {spot}.",
                "{Hero} knew what {he} had to do. {He} found {friend} {spot}, looking just as sad as {he} was.",
            ]),
            always(&[
                "\"I am sorry that I shouted,\" said {hero}. \"I am sorry too,\" said {friend}.",
                "\"I was not kind,\" said {hero}. \"Will you forgive me?\" {Friend} nodded. \"I was not kind either,\" {friend.he} said.",
            ]),
            always(&["Then {hero} had an idea. {Deal}", "\"Let us take turns,\" said {friend}. {Deal}"]),
        ],
        &[
            sometimes(70, &["{Gain}"]),
            sometimes(
                40,
                &[
                    "When the sun went down, they were still playing.",
                    "{Elder} heard them laugh and smiled.",
                    "\"This is much better,\" said {hero}. \"Yes,\" said {friend}, \"much better.\"",
                ],
            ),
            always(&[
                "{Hero} had learned that a friend is worth more than any toy.",
                "They still quarrelled now and then, but they always made up before supper.",
                "From then on, they always shared the {thing}.",
            ]),
        ],
    ],
};

/// Something good to eat is shared, and the kindness comes back.
pub const SHARED: Plot = Plot {
    who: Who::Anyone,
    props: &[
        &[
            ("food", "a basket of ripe plums"),
            ("short", "the plums"),
            ("them", "them"),
            ("half", "half of the plums"),
        ],
        &[("food", "a warm apple cake"), ("short", "the cake"), ("them", "it"), ("half", "half of the cake")],
        &[
            ("food", "a bag of sweet cherries"),
            ("short", "the cherries"),
            ("them", "them"),
            ("half", "half of the cherries"),
        ],
        &[
            ("food", "a loaf of bread with honey"),
            ("short", "the bread"),
            ("them", "it"),
            ("half", "half of the bread"),
        ],
        &[
            ("food", "six ginger biscuits"),
            ("short", "the biscuits"),
            ("them", "them"),
            ("half", "three of the biscuits"),
        ],
        &[
            ("food", "a big cheese sandwich"),
            ("short", "the sandwich"),
            ("them", "it"),
            ("half", "half of the sandwich"),
        ],
    ],
    paragraphs: &[
        &[
            INTRODUCTION,
            HABIT,
            always(&[
                "One {weather} {time}, {elder} gave {him} {food}. \"Enjoy {them},\" said {elder}.",
                "One {weather} {time}, {hero} got {food} from {elder}.",
            ]),
        ],
        &[
            always(&[
                "{Hero} went to {place} to eat {them} in peace. {Sky} {Sight}",
                "{Hero} carried {short} to {place} and sat down {spot}. {Sight}",
            ]),
            always(&[
                "{He} was just about to take the first bite when {he} saw {his} friend {friend} {spot2}. {Friend} looked pale and sad.",
                "Then {he} saw {a friend.kind} named {friend}, who was sitting all alone {spot2}.",
            ]),
            always(&[
                "\"What is wrong?\" asked {hero}. \"I dropped my lunch into the mud,\" said {friend}, \"and I am so hungry.\"",
                "\"Are you not well?\" asked {hero}. \"I forgot my lunch,\" said {friend}, \"and it is a long way home.\"",
            ]),
        ],
        &[
            sometimes(
                60,
                &[
                    "{Hero} looked at {short}. {He} was hungry too, and {he} wanted to keep everything for {himself}. But then {he} looked at {friend} again.",
                    "{Hero} held {short} tightly. \"If I share, I will have less,\" {he} thought. But {friend}'s tummy rumbled loudly.",
                ],
            ),
            always(&[
                "\"Here,\" said {hero}, and {he} gave {friend} {half}. \"There is enough for two.\"",
                "\"Come and sit with me,\" said {hero}. {He} gave {friend.him} {half}.",
            ]),
            sometimes(
                55,
                &[
                    "{Friend}'s face lit up. \"Thank you! That is so kind,\" {friend.he} said.",
                    "\"For me?\" asked {friend}. \"You are a true friend.\"",
                ],
            ),
            sometimes(
                35,
                &[
                    "They ate together, and everything tasted better than it did alone.",
                    "While they ate, they talked and laughed and watched the clouds.",
                ],
            ),
        ],
        &[
            always(&[
                "On the way home it began to rain. {Friend} had a big umbrella, and there was room for both of them under it.",
                "On the way home, {hero} slipped and hurt {his} knee. {Friend} helped {him} up and held {his} arm all the way.",
                "The next day, {hero} could not carry {his} heavy bag. \"Let me help you,\" said {friend}, and {friend.he} took one of the handles.",
                "A week later, {hero} forgot {his} own lunch. \"Now it is my turn to share,\" said {friend}.",
            ]),
            sometimes(
                40,
                &[
                    "\"You shared with me,\" said {friend}, \"so I am glad to help you.\"",
                    "{Hero} smiled. \"What luck that we met,\" {he} said.",
                ],
            ),
            always(&[
                "{Hero} had learned that what we share comes back to us.",
                "And so the two of them became the best of friends.",
                "That evening {hero} told {elder}, \"I ate less today, but I am happier.\"",
            ]),
        ],
    ],
};
