//! Plots of learning, waiting and becoming brave.

use super::{HABIT, INTRODUCTION, Plot, always, sometimes};
use crate::stories::cast::Who;

/// A skill is learned by trying again.
pub const LEARNED: Plot = Plot {
    who: Who::Anyone,
    props: &[
        &[
            ("skill", "ride a bike"),
            ("fail", "The bike wobbled to the left and to the right, and {he} fell onto the grass."),
            ("tip", "Look far ahead, and not down at your feet"),
            ("do", "{He} looked far ahead and pushed the pedals."),
            ("win", "The bike rolled straight along the path, all the way to the gate!"),
        ],
        &[
            ("skill", "swim"),
            ("fail", "{He} kicked and splashed, but {he} swallowed water and had to stand up."),
            ("tip", "Breathe slowly and lie flat on the water like a leaf"),
            ("do", "{He} took a slow breath and lay flat on the water."),
            ("win", "{He} moved {his} arms and legs, and {he} was swimming!"),
        ],
        &[
            ("skill", "whistle"),
            ("fail", "{He} blew and blew, but only air came out."),
            ("tip", "Make your mouth small and round, and blow very gently"),
            ("do", "{He} made {his} mouth small and round and blew gently."),
            ("win", "A clear, high note came out, and a bird sang back!"),
        ],
        &[
            ("skill", "skip with a rope"),
            ("fail", "The rope caught on {his} feet again and again."),
            ("tip", "Listen to the rope, and jump when it taps the ground"),
            ("do", "{He} listened to the rope. Tap, tap, tap."),
            ("win", "{He} jumped ten times without a stop!"),
        ],
        &[
            ("skill", "bake bread"),
            ("fail", "The first loaf was as flat as a plate and as hard as a stone."),
            ("tip", "Give the dough time to rest in a warm place"),
            ("do", "{He} put the dough near the stove, and this time {he} waited."),
            ("win", "The loaf grew tall and golden, and the whole house smelled good!"),
        ],
        &[
            ("skill", "skate on the ice"),
            ("weather", "frosty"),
            ("fail", "{His} feet slid away, and {he} sat down with a bump."),
            ("tip", "Bend your knees a little and take small steps"),
            ("do", "{He} bent {his} knees and took small steps."),
            ("win", "{He} glided across the ice like a bird!"),
        ],
        &[
            ("skill", "row a boat"),
            ("fail", "The boat went round and round in a circle."),
            ("tip", "Pull both oars at the same time"),
            ("do", "{He} held both oars and pulled them together."),
            ("win", "The boat went straight across the water!"),
        ],
        &[
            ("skill", "catch a ball"),
            ("fail", "The ball slipped through {his} hands and rolled away."),
            ("tip", "Keep your eyes on the ball until it is in your hands"),
            ("do", "{He} watched the ball come nearer and nearer."),
            ("win", "{He} closed {his} hands, and the ball was in them!"),
        ],
    ],
    paragraphs: &[
        &[
            INTRODUCTION,
            HABIT,
            always(&[
                "There was one thing that {he} could not do. {He} could not {skill}.",
                "{He} had never learned to {skill}, and {he} wished for it every day.",
                "All {his} friends could {skill}, but {hero} could not.",
            ]),
        ],
        &[
            always(&[
                "One {weather} {time}, {hero} decided to try. {Fail}",
                "One {weather} {time}, {he} said, \"Today I will learn to {skill}.\" {Fail}",
            ]),
            always(&[
                "{He} tried again, and it was no better. \"I will never {skill}!\" {he} said, and {he} [threw up {his} hands|sat down with a frown|felt like crying].",
                "{He} tried a second time and a third time. \"It is too hard for me,\" {he} said sadly.",
            ]),
        ],
        &[
            always(&[
                "{Elder} had seen it all. \"Nobody can do it the first time,\" said {elder}. \"{Tip}.\"",
                "{His} friend {friend} came and sat beside {him}. \"I could not do it at first either,\" said {friend}. \"{Tip}. It helped me.\"",
                "\"May I tell you a secret?\" asked {elder}. \"{Tip}. Then try once more.\"",
            ]),
            always(&[
                "{Hero} wiped {his} face and stood up. {Do}",
                "{Hero} nodded and tried once more. {Do}",
            ]),
            sometimes(
                40,
                &[
                    "It was better, but not yet right. {Hero} did not give up.",
                    "It almost worked. {He} practised until {his} cheeks were red.",
                    "{He} practised that day, and the next day, and the day after that.",
                ],
            ),
            always(&[
                "And then it happened. {Win}",
                "At last, it worked. {Win}",
                "All of a sudden, it was easy. {Win}",
            ]),
        ],
        &[
            always(&[
                "\"I did it!\" shouted {hero}. \"Look, I can {skill}!\"",
                "\"Did you see that?\" {hero} cried. \"I can {skill} now!\"",
            ]),
            sometimes(
                45,
                &[
                    "Everyone clapped.",
                    "{Elder} gave {him} a big hug.",
                    "{He} laughed so loudly that the birds flew up from the trees.",
                ],
            ),
            always(&[
                "{Hero} was proud, because {he} had not given up.",
                "That night {hero} told {elder}, \"Hard things become easy if you keep trying.\"",
                "And the next week, {he} taught a younger {kind} how to {skill}.",
                "From then on, whenever something was hard, {hero} remembered that day and tried once more.",
            ]),
        ],
    ],
};

/// A seed is planted, and waiting is the hardest part.
pub const PLANTED: Plot = Plot {
    who: Who::Anyone,
    props: &[
        &[
            ("seed", "striped seed"),
            ("plant", "sunflower"),
            ("grown", "It was taller than the door, and its face was as yellow as the sun."),
            ("used", "In autumn they shared its seeds with the birds."),
        ],
        &[
            ("seed", "flat white seed"),
            ("plant", "pumpkin"),
            ("grown", "It was so round and heavy that two had to carry it."),
            ("used", "They made a big pot of soup and asked the neighbours to come."),
        ],
        &[
            ("seed", "smooth brown bean"),
            ("plant", "bean plant"),
            ("grown", "It had climbed to the top of its pole, and long green beans hung from it."),
            ("used", "They picked a whole bowl of beans for supper."),
        ],
        &[
            ("seed", "tiny seed"),
            ("plant", "strawberry plant"),
            ("grown", "Sweet red berries were hiding under its leaves."),
            ("used", "{Hero} gave the biggest berry to {friend}."),
        ],
        &[
            ("seed", "round brown bulb"),
            ("plant", "tulip"),
            ("grown", "Its red petals opened like a small cup."),
            ("used", "Everyone who came down the lane stopped to look at it."),
        ],
    ],
    paragraphs: &[
        &[
            INTRODUCTION,
            HABIT,
            always(&[
                "One {weather} {time}, {elder} gave {him} {a seed}. \"Plant it and take care of it,\" said {elder}, \"and you will see something wonderful.\"",
                "One {weather} {time}, {he} found {a seed} in an old box. \"What will grow from it?\" {he} asked. \"Plant it and see,\" said {elder}.",
            ]),
        ],
        &[
            always(&[
                "{Hero} dug a small hole [behind the house|by the gate|in the garden|near the wall], put the {seed} into it, and covered it with soft earth. Then {he} watered it and sat down to wait.",
                "{Hero} made a hole with {his} finger [behind the house|by the gate|in the garden|near the wall]. {He} laid the {seed} inside and gave it a little water.",
            ]),
            sometimes(
                70,
                &[
                    "The next morning {he} ran outside, but there was nothing to see. There was nothing the day after, either. \"It does not work,\" {he} said crossly.",
                    "{He} looked in the morning, at noon and in the evening. The earth was bare. \"Why does it not grow?\" {he} asked.",
                ],
            ),
            sometimes(
                35,
                &[
                    "{He} wanted to dig it up and look.",
                    "\"Perhaps it is asleep,\" {he} thought.",
                    "{He} even sang a song to it.",
                ],
            ),
        ],
        &[
            always(&[
                "\"Be patient,\" said {elder}. \"A seed works in the dark, where you cannot see it.\"",
                "\"Good things take time,\" said {elder}. \"Give it water and sun, and wait.\"",
            ]),
            always(&[
                "So {hero} watered it every day and pulled out the weeds. One morning, a tiny green tip came out of the ground!",
                "So {hero} went on with the watering, day after day. And then, after a night of rain, a small green shoot looked out of the earth.",
            ]),
            sometimes(
                50,
                &[
                    "\"It is alive!\" shouted {hero}, and {he} ran to tell {his} friend {friend}.",
                    "{Hero} jumped for joy. \"Come and see!\" {he} called to {his} friend {friend}.",
                ],
            ),
        ],
        &[
            always(&[
                "Week by week it grew, and at last there was a {plant}. {Grown}",
                "The shoot grew and grew, and by the end of the summer it was a fine {plant}. {Grown}",
            ]),
            sometimes(60, &["{Used}"]),
            always(&[
                "\"It was worth the wait,\" said {hero}.",
                "{Hero} smiled, for {he} had learned to be patient.",
                "\"You see,\" said {elder}, \"you cannot hurry the things you love.\"",
            ]),
        ],
    ],
};

/// A fear is overcome with a little help.
pub const FEARED: Plot = Plot {
    who: Who::Anyone,
    props: &[
        &[
            ("fear", "the dark"),
            ("when", "When the light went out, {he} saw a big black shape in the corner of the room."),
            ("comfort", "Let us look at it together"),
            ("step", "They lit a small lamp and walked to the corner. It was only {his} coat on a hook!"),
            ("after", "That night {he} said good night to the coat and went to sleep."),
        ],
        &[
            ("fear", "thunder"),
            ("when", "One evening the sky turned black, and a loud boom shook the windows."),
            ("comfort", "Let us count how far away it is"),
            (
                "step",
                "They counted after each flash. One, two, three, four, five! Each time they could count a little further, because the storm was moving away.",
            ),
            ("after", "When the last boom came, {he} had counted to twenty and was not afraid at all."),
        ],
        &[
            ("fear", "the high slide"),
            ("when", "{He} climbed to the top, looked down, and climbed back down again."),
            ("comfort", "We can go down together the first time"),
            (
                "step",
                "They sat down one behind the other and held on tight. Then they let go, and the wind rushed past their ears!",
            ),
            ("after", "\"Again!\" {he} shouted at the bottom, and this time {he} went alone."),
        ],
        &[
            ("fear", "the neighbour's big dog"),
            ("when", "Whenever it barked, {he} hid behind the gate."),
            ("comfort", "Hold out your hand and let him smell it"),
            (
                "step",
                "Slowly, {he} held out {his} hand. The dog sniffed it, wagged its tail, and licked {his} fingers.",
            ),
            ("after", "After that, {hero} and the dog played with a stick every afternoon."),
        ],
        &[
            ("fear", "deep water"),
            ("when", "The others jumped into the lake, but {he} stayed on the shore."),
            ("comfort", "Come in as far as your knees, and I will stay beside you"),
            (
                "step",
                "First the water came to {his} ankles, then to {his} knees. It was cool and soft, and nothing bad happened.",
            ),
            ("after", "By the end of the day, {he} was splashing with all the others."),
        ],
        &[
            ("fear", "singing in front of people"),
            ("when", "On the day of the spring party, {his} legs began to shake behind the curtain."),
            ("comfort", "Look at me, and sing it just for me"),
            (
                "step",
                "{He} stepped out and looked for one kind face. Then {he} began, very quietly at first, and then louder and louder.",
            ),
            ("after", "When the song was over, the whole room clapped and cheered."),
        ],
    ],
    paragraphs: &[
        &[
            INTRODUCTION,
            HABIT,
            always(&[
                "{He} was not afraid of many things, but {he} was afraid of {fear}.",
                "Only one thing scared {him}, and that was {fear}.",
                "{Hero} had a secret. {He} was afraid of {fear}.",
            ]),
        ],
        &[
            always(&["{When}"]),
            always(&[
                "{Hero} felt cold all over. \"I cannot do it,\" {he} whispered.",
                "{His} heart went thump, thump, thump. \"Help!\" {he} called in a small voice.",
                "{He} wanted to run away and hide under {his} blanket.",
            ]),
        ],
        &[
            always(&[
                "{Elder} came and took {his} hand. \"Everyone is afraid of something,\" {elder.he} said. \"{Comfort}.\"",
                "{His} friend {friend} did not laugh at {him}. \"I used to be scared too,\" said {friend}. \"{Comfort}.\"",
                "\"It is all right to be afraid,\" said {elder} gently. \"{Comfort}.\"",
            ]),
            always(&[
                "{Hero} took a deep breath and nodded. {Step}",
                "\"Will you really stay with me?\" asked {hero}. \"I promise,\" came the answer. {Step}",
                "{Hero} was still afraid, but {he} wanted to try. {Step}",
            ]),
        ],
        &[
            always(&["{After}"]),
            always(&[
                "\"It was not so bad,\" said {hero}, and {he} laughed at {his} old fear.",
                "\"You were very brave,\" said {elder}. {Hero} stood a little taller.",
                "\"I was scared, and I did it anyway!\" said {hero}.",
            ]),
            sometimes(
                70,
                &[
                    "{Hero} had learned that being brave does not mean that you are never afraid.",
                    "From that day on, {he} was not afraid of {fear} any more.",
                    "And when {he} met someone else who was afraid, {he} knew just what to say.",
                ],
            ),
        ],
    ],
};
