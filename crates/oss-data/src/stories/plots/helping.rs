//! Plots of helping: an animal, a broken thing, a neighbor who is ill.

use super::{HABIT, INTRODUCTION, Plot, always, sometimes};
use crate::stories::cast::Who;

/// An animal is in trouble.
pub const RESCUED: Plot = Plot {
    who: Who::Child,
    props: &[
        &[
            ("animal", "little bird"),
            ("sound", "a weak peep"),
            ("trouble", "It had fallen out of its nest and was too young to fly."),
            ("need", "a ladder"),
            ("help", "{Elder} held the ladder, and {hero} climbed up and put the bird back into its nest."),
            ("thanks", "A few weeks later, the bird flew past {his} window and sang."),
        ],
        &[
            ("animal", "kitten"),
            ("sound", "a sad meow"),
            ("trouble", "It sat high up in a tree and did not know how to get down."),
            ("need", "a ladder and a basket"),
            (
                "help",
                "{Elder} held the ladder, {hero} lifted the kitten into the basket, and slowly they came down again.",
            ),
            ("thanks", "The kitten purred and rubbed its head against {his} leg."),
        ],
        &[
            ("animal", "puppy"),
            ("sound", "a soft whine"),
            ("trouble", "It held up one paw, for a long thorn was stuck in it."),
            ("need", "a warm cloth and steady hands"),
            (
                "help",
                "{Hero} held the puppy and spoke to it softly while {elder} pulled out the thorn and cleaned the paw.",
            ),
            ("thanks", "The puppy licked {his} nose and ran three times around the yard."),
        ],
        &[
            ("animal", "turtle"),
            ("sound", "a scratching noise"),
            ("trouble", "It lay on its back and waved its short legs in the air."),
            ("need", "two pairs of hands"),
            (
                "help",
                "{Elder} held one side of the shell and {hero} held the other. They turned it over, very gently.",
            ),
            ("thanks", "The turtle looked at {him} for a long time before it walked away."),
        ],
        &[
            ("animal", "duckling"),
            ("sound", "a frightened peep"),
            ("trouble", "It had slipped through a hole in the fence and could not find its mother."),
            ("need", "a soft hat"),
            (
                "help",
                "They set the duckling in the hat and carried it along the water until they heard its mother call.",
            ),
            ("thanks", "The duckling swam to its mother, and all the ducks quacked at once."),
        ],
        &[
            ("animal", "lamb"),
            ("sound", "a faint bleat"),
            ("trouble", "Its wool was caught in a thorn bush, and it could not move."),
            ("need", "a pair of scissors"),
            ("help", "{Hero} kept the lamb calm while {elder} cut the wool free, bit by bit."),
            ("thanks", "The lamb shook itself and skipped back to the other sheep."),
        ],
        &[
            ("animal", "hedgehog"),
            ("sound", "a small snuffle"),
            ("trouble", "It had fallen into an empty bucket and could not climb out."),
            ("need", "thick gloves"),
            (
                "help",
                "With the gloves on {his} hands, {hero} lifted it out while {elder} held the bucket still.",
            ),
            ("thanks", "After that, the hedgehog came to {his} garden every evening and ate the slugs."),
        ],
    ],
    paragraphs: &[
        &[INTRODUCTION, HABIT],
        &[
            always(&[
                "One {weather} {time}, {he} was walking {in}. {Sight} Suddenly {he} heard {sound}.",
                "One {weather} {time}, {hero} and {elder} went to {place}. {Sky} \"Listen,\" said {hero}. \"Did you hear that?\" It was {sound}.",
                "One {weather} {time}, when {hero} was playing {in}, {he} heard {sound}.",
            ]),
            always(&[
                "{He} looked {spot}, but the sound came from further away. A few steps on, {he} found {a animal}. {Trouble}",
                "{He} followed the sound and found {a animal}. {Trouble}",
            ]),
            sometimes(
                50,
                &[
                    "\"You poor thing,\" said {hero}. \"Do not be afraid. I will help you.\"",
                    "\"Oh, you must be so scared,\" whispered {hero}.",
                ],
            ),
        ],
        &[
            sometimes(
                40,
                &[
                    "{He} wanted to grab it at once, but {he} saw that it was trembling. So {he} stayed still and spoke in a low voice.",
                    "{He} tried to do it alone, but it was too hard.",
                ],
            ),
            always(&[
                "{He} called {elder}. \"We need {need},\" said {elder}.",
                "\"{Elder}, come quickly!\" called {hero}. {Elder} looked and nodded. \"With {need} we can do it,\" {elder.he} said.",
            ]),
            always(&["{Help}"]),
            sometimes(
                45,
                &[
                    "\"Slowly, slowly,\" said {elder}. \"There! It is safe.\"",
                    "{Hero} held {his} breath until it was done.",
                    "\"Well done,\" said {elder}. \"You were very gentle.\"",
                ],
            ),
        ],
        &[
            always(&["{Thanks}"]),
            sometimes(
                45,
                &[
                    "\"I think it is saying thank you,\" said {hero} with a smile.",
                    "{Hero} felt warm inside.",
                    "\"Goodbye, little friend,\" said {hero}.",
                ],
            ),
            always(&[
                "That night {he} dreamed of the {animal} and smiled in {his} sleep.",
                "{He} had learned that even small hands can do a big kindness.",
                "From then on, {hero} always stopped and looked when {he} heard a small voice.",
                "{He} told {his} friend {friend} all about it, and they were both glad that it had ended well.",
            ]),
        ],
    ],
};

/// A beloved thing breaks and is mended together.
pub const MENDED: Plot = Plot {
    who: Who::Anyone,
    props: &[
        &[
            ("thing", "kite"),
            ("look", "[red|blue|yellow|big]"),
            ("use", "fly it high above the fields"),
            ("broke", "The wind pushed it into a thorn tree, and there was a long tear in the paper."),
            ("need", "glue and a strip of paper"),
            ("fix", "They spread the glue along the tear and pressed the strip of paper over it."),
            ("works", "The kite climbed into the sky, higher than ever before."),
        ],
        &[
            ("thing", "wagon"),
            ("look", "[red|green|little|wooden]"),
            ("use", "pull it up and down the lane"),
            ("broke", "The wagon hit a big stone, and one of the wheels came off."),
            ("need", "a hammer and a new pin"),
            ("fix", "They lifted the wagon, pushed the wheel back on, and tapped the pin into its place."),
            ("works", "The wagon rolled down the lane without a wobble."),
        ],
        &[
            ("thing", "doll"),
            ("look", "[old|little|pretty|soft]"),
            ("use", "tell it about {his} day"),
            ("broke", "The doll's arm caught on the gate, and the seam tore open."),
            ("need", "a needle and some thread"),
            ("fix", "Stitch by stitch, they closed the seam until no stuffing could fall out."),
            ("works", "The doll could wave its arm again."),
        ],
        &[
            ("thing", "toy boat"),
            ("look", "[blue|white|little|fine]"),
            ("use", "sail it across the pond"),
            ("broke", "The toy boat bumped into a rock, and the mast snapped in two."),
            ("need", "a straight stick and some string"),
            ("fix", "They cut the stick to the right length, tied the sail to it, and set it into the boat."),
            ("works", "The toy boat sailed across the pond with the wind behind it."),
        ],
        &[
            ("thing", "stool"),
            ("look", "[small|wooden|old|green]"),
            ("use", "stand on it to look out of the window"),
            ("broke", "There was a loud crack, and one of its legs broke off."),
            ("need", "some strong glue and a piece of string"),
            (
                "fix",
                "They put glue on the leg, pushed it back, and tied the string around it until the glue was dry.",
            ),
            ("works", "The stool stood firm on all its legs."),
        ],
        &[
            ("thing", "music box"),
            ("look", "[small|golden|old|round]"),
            ("use", "listen to its song before bed"),
            ("broke", "The music box went click, and then it was silent."),
            ("need", "a tiny screwdriver and a drop of oil"),
            ("fix", "They opened the lid, tightened a loose screw, and put the oil on the little wheels."),
            ("works", "The music box began to play its song, as clear as a bell."),
        ],
    ],
    paragraphs: &[
        &[
            INTRODUCTION,
            always(&[
                "{He} had {a look} {thing}, and {he} loved to {use}.",
                "Of all {his} things, {he} loved {his} {look} {thing} best. Every day {he} liked to {use}.",
            ]),
        ],
        &[
            always(&[
                "One {weather} {time}, something bad happened. {Broke}",
                "Then, one {weather} {time}, there was an accident. {Broke}",
            ]),
            always(&[
                "\"Oh no, my {thing}!\" cried {hero}. \"Now it is broken for ever.\"",
                "{Hero} looked at the broken {thing}, and tears ran down {his} cheeks.",
                "\"What shall I do?\" {hero} asked. \"It was my favourite thing in the world.\"",
            ]),
            sometimes(
                30,
                &[
                    "{He} tried to mend it alone, but it only fell apart again.",
                    "{He} hid it under {his} bed, because {he} did not want to look at it.",
                ],
            ),
        ],
        &[
            always(&[
                "{He} carried it to {elder}. {Elder} turned it over and looked at it closely. \"Do not throw it away,\" {elder.he} said. \"We only need {need}.\"",
                "{His} friend {friend} came to see what was wrong. \"We can mend it,\" said {friend}. \"All we need is {need}. {Elder} will lend them to us.\"",
                "\"Show it to me,\" said {elder} kindly. \"I think I can help. Bring me {need}.\"",
            ]),
            always(&[
                "They sat down at the table together and set to work. {Fix}",
                "They worked side by side for a long time. {Fix}",
            ]),
            sometimes(
                30,
                &[
                    "It was not easy, and they had to start again twice.",
                    "{Hero} held everything still with both hands.",
                    "\"Not too fast,\" {hero} told {himself}.",
                ],
            ),
        ],
        &[
            always(&["Then came the big moment. {Works}", "At last it was ready. {Works}"]),
            sometimes(
                60,
                &[
                    "\"It works!\" shouted {hero}. \"Thank you for your help!\"",
                    "{Hero} laughed out loud. \"It is even better than before!\" {he} said.",
                    "{Hero} clapped {his} hands and danced around the {thing}.",
                ],
            ),
            always(&[
                "You could still see where it had been broken, but {hero} did not mind. It made the {thing} special.",
                "{Hero} learned that broken things can often be mended, if you take your time.",
                "After that, whenever something broke, {hero} did not cry. {He} said, \"Let us see what we need.\"",
            ]),
        ],
    ],
};

/// A neighbour is ill and gets a visit.
pub const VISITED: Plot = Plot {
    who: Who::Anyone,
    props: &[
        &[
            ("neighbour", "Mrs Bell"),
            ("n.he", "she"),
            ("n.him", "her"),
            ("n.his", "her"),
            ("bring", "a pot of hot soup"),
            ("bring.short", "the soup"),
            ("make", "cut up the carrots and stirred the soup"),
            ("later", "taught {hero} how to knit"),
        ],
        &[
            ("neighbour", "Mr Finch"),
            ("n.he", "he"),
            ("n.him", "him"),
            ("n.his", "his"),
            ("bring", "a basket of warm rolls"),
            ("bring.short", "the rolls"),
            ("make", "kneaded the dough and shaped it into rolls"),
            ("later", "taught {hero} how to carve a whistle"),
        ],
        &[
            ("neighbour", "Mrs Brook"),
            ("n.he", "she"),
            ("n.him", "her"),
            ("n.his", "her"),
            ("bring", "a bunch of wild flowers"),
            ("bring.short", "the flowers"),
            ("make", "picked the brightest flowers by the lane and tied them with grass"),
            ("later", "showed {hero} a chest full of old maps"),
        ],
        &[
            ("neighbour", "Mr Hill"),
            ("n.he", "he"),
            ("n.him", "him"),
            ("n.his", "his"),
            ("bring", "a big apple pie"),
            ("bring.short", "the pie"),
            ("make", "peeled the apples and rolled out the pastry"),
            ("later", "let {hero} ring the old bell in the yard"),
        ],
    ],
    paragraphs: &[
        &[
            INTRODUCTION,
            always(&[
                "Next door lived {neighbour}, who always waved from the window when {hero} went by.",
                "Every morning {he} said hello to old {neighbour}, who lived next door.",
            ]),
        ],
        &[
            always(&[
                "One {weather} {time}, the window was shut, and nobody waved. \"Where is {neighbour}?\" asked {hero}.",
                "One {weather} {time}, {hero} knocked at {n.his} door, but nobody came.",
            ]),
            always(&[
                "\"{Neighbour} is ill and must stay in bed,\" said {elder}.",
                "\"I am afraid {n.he} has a bad cold,\" {elder} told {him}.",
            ]),
            always(&[
                "{Hero} thought of {neighbour}, alone in the quiet house. \"We must do something nice,\" {he} said.",
                "That made {hero} sad. \"It is no fun to be ill and alone,\" {he} said. \"Can we cheer {n.him} up?\"",
            ]),
        ],
        &[
            always(&[
                "So {hero} and {his} friend {friend} set to work. They {make}. Soon they had {bring}.",
                "{He} ran to fetch {his} friend {friend}, and the two of them {make}. Before long, {bring} was ready.",
            ]),
            sometimes(
                40,
                &[
                    "They walked next door very carefully, so that nothing would fall. \"Come in,\" called a weak voice.",
                    "{Hero} knocked softly. \"Who is there?\" asked {neighbour}. \"It is us!\" said {friend}.",
                ],
            ),
            always(&[
                "When {neighbour} saw {bring.short}, {n.his} eyes began to shine. \"Is that for me?\" {n.he} asked.",
                "{Neighbour} sat up in bed and smiled for the first time that day. \"How kind you are!\" {n.he} said.",
            ]),
            sometimes(
                50,
                &[
                    "They stayed for an hour and told {n.him} funny stories.",
                    "{Hero} sang a song, and {friend} opened the curtains to let in the light.",
                    "They put another blanket on the bed and sat with {n.him} until the clock struck five.",
                ],
            ),
        ],
        &[
            sometimes(
                45,
                &[
                    "\"I feel better already,\" said {neighbour}. \"Good friends are the best medicine.\"",
                    "A few days later the window was open again, and {neighbour} was waving.",
                ],
            ),
            always(&["When {neighbour} was well, {n.he} {later}.", "To say thank you, {neighbour} {later}."]),
            always(&[
                "{Hero} had learned that a little kindness can come back as a big one.",
                "And from that day on, {hero} went to see {n.him} every week.",
            ]),
        ],
    ],
};
