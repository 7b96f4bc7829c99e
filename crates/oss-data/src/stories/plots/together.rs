//! Plots of playing together: a race, a rainy day, somebody new.

use super::{HABIT, INTRODUCTION, Plot, always, sometimes};
use crate::stories::cast::Who;

/// The hero could win, and stops to help instead.
pub const RACE: Plot = Plot {
    who: Who::Anyone,
    props: &[
        &[
            ("race", "the running race"),
            ("train", "ran up and down the hill every morning"),
            ("mishap", "{Friend} had tripped over a root and was holding {friend.his} knee."),
            ("aid", "{He} put {friend}'s arm around {his} shoulders, and together they walked on."),
            ("prize", "a golden ribbon"),
        ],
        &[
            ("race", "the boat race"),
            ("train", "rowed across the pond every evening"),
            ("mishap", "{Friend}'s boat had hit a rock, and water was pouring into it."),
            ("aid", "{He} turned around, pulled {friend} into {his} own boat, and rowed on for two."),
            ("prize", "a silver cup"),
        ],
        &[
            ("race", "the sack race"),
            ("train", "hopped around the yard until {his} legs ached"),
            ("mishap", "{Friend}'s sack had torn, and {friend.he} had fallen flat on {friend.his} face."),
            ("aid", "{He} hopped back and helped {friend.him} up, and they hopped on side by side."),
            ("prize", "a big honey cake"),
        ],
        &[
            ("race", "the sledge race"),
            ("train", "waxed {his} sledge and practised on every slope"),
            ("mishap", "{Friend}'s sledge had turned over, and {friend.he} was stuck in the snow."),
            ("aid", "{He} dug {friend.him} out of the snow, and they rode on together on one sledge."),
            ("prize", "a pair of red mittens"),
        ],
    ],
    paragraphs: &[
        &[
            INTRODUCTION,
            always(&[
                "More than anything, {he} wanted to win {race}. {He} {train}.",
                "Soon it would be the day of {race}, and {he} wished to win it. So {he} {train}.",
            ]),
            sometimes(35, &["The prize was {prize}.", "The winner would get {prize}."]),
        ],
        &[
            always(&[
                "At last the big day came. {Hero}, {his} friend {friend} and all the others stood in line. \"Ready, steady, go!\" called {elder}.",
                "When the day came, {hero} was so excited that {he} could hardly eat. {His} friend {friend} was in the race too. Then {elder} waved a flag, and the race began.",
            ]),
            always(&[
                "{Hero} was fast. Soon {he} was in front of all the others, and {he} could already see the finish.",
                "{Hero} gave all {he} had. One by one, {he} left the others behind.",
            ]),
            always(&[
                "Then {he} heard a cry. {He} looked back. {Mishap}",
                "Suddenly somebody cried, \"Help!\" {Mishap}",
            ]),
        ],
        &[
            sometimes(
                60,
                &[
                    "{Hero} looked at the finish, and then {he} looked at {friend}. \"If I stop, I will lose,\" {he} thought. But {he} stopped.",
                    "The finish was so near! But {hero} could not leave {friend} like that.",
                ],
            ),
            sometimes(
                60,
                &[
                    "\"Are you hurt?\" asked {hero}. \"Go on, or you will not win!\" said {friend}. \"You are more important,\" said {hero}.",
                    "\"I am here,\" said {hero}. \"But what about the race?\" asked {friend}. \"There will be other races,\" said {hero}.",
                ],
            ),
            always(&["{Aid}"]),
            sometimes(
                50,
                &[
                    "All the others passed them, and the two friends came in last.",
                    "They were the very last to reach the finish.",
                ],
            ),
        ],
        &[
            always(&[
                "But then something strange happened. Everyone clapped and cheered, even louder than for the winner.",
                "But nobody laughed. {Elder} came to them with a smile. \"I saw what you did,\" {elder.he} said.",
            ]),
            always(&[
                "The winner came over too. \"You should have this,\" said the winner, and gave {hero} {prize}.",
                "\"You did not win the race,\" said {elder}, \"but you won something better. You have a friend for life.\"",
            ]),
            always(&[
                "{Hero} blushed and squeezed {friend}'s hand.",
                "{Hero} was as happy as if {he} had come first.",
                "And {hero} never forgot that day, although {he} had come last.",
            ]),
        ],
    ],
};

/// It rains, and something is made of what is there.
pub const RAINY_DAY: Plot = Plot {
    who: Who::Anyone,
    props: &[
        &[
            ("make", "ship"),
            ("from", "three big boxes and an old sheet"),
            ("build", "They put the boxes in a row and hung up the sheet for a sail."),
            ("play", "They sailed across the wide sea, and a green island came nearer and nearer."),
            ("danger", "a whale"),
            ("solve", "They sang to it, and it swam along beside them."),
        ],
        &[
            ("make", "castle"),
            ("from", "all the chairs and four blankets"),
            ("build", "They pushed the chairs together and laid the blankets over them."),
            ("play", "{Hero} was the guard at the gate, and {friend} looked out from the tower."),
            ("danger", "a dragon"),
            ("solve", "They asked it to come in for tea, and it was glad to get out of the rain."),
        ],
        &[
            ("make", "train"),
            ("from", "a row of cushions and a round tin lid"),
            ("build", "They set the cushions one behind the other and used the lid as a wheel for steering."),
            (
                "play",
                "\"Tickets, please!\" called {friend}, and the train went over high bridges and through long tunnels.",
            ),
            ("danger", "a cow on the tracks"),
            ("solve", "They gave it a ticket too, and it got in at the back."),
        ],
        &[
            ("make", "puppet show"),
            ("from", "two old socks and some buttons"),
            ("build", "They sewed on the buttons for eyes and hid behind the sofa."),
            ("play", "One puppet was a king who had lost his laugh, and the other one was a clown."),
            ("danger", "the king's bad temper"),
            ("solve", "The clown fell over his own feet three times, and at last the king had to laugh."),
        ],
        &[
            ("make", "tent"),
            ("from", "a broom, a rope and a big tablecloth"),
            ("build", "They tied the rope to the broom and threw the tablecloth over it."),
            ("play", "They were explorers in the jungle, and a torch was their camp fire."),
            ("danger", "a tiger"),
            ("solve", "They shared their biscuits with it, and it purred like a cat."),
        ],
    ],
    paragraphs: &[
        &[
            INTRODUCTION,
            HABIT,
            always(&[
                "One morning it was raining hard. {Hero} pressed {his} nose against the window. \"Now I cannot go outside,\" {he} sighed.",
                "One day the rain fell and fell and would not stop. \"There is nothing to do,\" said {hero}.",
            ]),
        ],
        &[
            always(&[
                "Then there was a knock at the door. It was {his} friend {friend}, wet from head to toe. \"Let us play inside,\" said {friend}.",
                "{His} friend {friend} had come to visit, but {friend.he} was bored too. They sat on the floor and listened to the rain.",
            ]),
            always(&[
                "They looked around the house and found {from}. \"What can we do with that?\" asked {friend}.",
                "\"You may use {from}, if you like,\" said {elder}. {Hero} and {friend} looked at each other.",
            ]),
            always(&[
                "{Hero} thought for a moment, and {his} eyes began to shine. \"I know!\" {he} said. \"Let us make a {make}!\"",
                "\"I have an idea!\" cried {hero}. \"We can make a {make} out of it.\"",
            ]),
        ],
        &[
            always(&["{Build} Soon the {make} was ready.", "So they set to work. {Build}"]),
            always(&["{Play}"]),
            sometimes(
                80,
                &[
                    "\"Look out!\" shouted {hero}. \"There is {danger}!\" {Solve}",
                    "Then they met with {danger}. \"What shall we do?\" asked {friend}. {Solve}",
                ],
            ),
            sometimes(
                25,
                &[
                    "They laughed until their tummies hurt.",
                    "Even {elder} came to play with them for a while.",
                    "Outside the thunder rolled, but they did not hear it.",
                ],
            ),
        ],
        &[
            always(&[
                "When {elder} called them for supper, they were surprised. \"Is it evening already?\" asked {friend}.",
                "After a long while, {friend} looked out of the window. \"The rain has stopped,\" {friend.he} said. Neither of them had noticed.",
            ]),
            sometimes(
                35,
                &[
                    "\"Let us go on with our {make} tomorrow!\" said {hero}.",
                    "\"I hope that it will rain again tomorrow,\" said {hero}, and everybody laughed.",
                ],
            ),
            always(&[
                "{Hero} had learned that a day is only as grey as you make it.",
                "It had been the best rainy day of all.",
                "And from then on, {hero} was never sad when it rained.",
            ]),
        ],
    ],
};

/// Somebody new is shy and is asked to join in.
pub const NEWCOMER: Plot = Plot {
    who: Who::Anyone,
    props: &[
        &[
            ("game", "hide and seek"),
            ("talent", "{Friend} found such a good place to hide that nobody could find {friend.him}."),
            ("praise", "You hide better than anyone I know"),
        ],
        &[
            ("game", "tag"),
            ("talent", "{Friend} was so quick that nobody could catch {friend.him}."),
            ("praise", "You run like the wind"),
        ],
        &[
            ("game", "ball"),
            ("talent", "{Friend} could throw the ball right over the tallest tree."),
            ("praise", "I have never seen anyone throw so far"),
        ],
        &[
            ("game", "pirates"),
            ("talent", "{Friend} knew the names of all the winds and drew a real treasure map."),
            ("praise", "You must be our captain"),
        ],
        &[
            ("game", "detectives"),
            ("talent", "{Friend} saw a tiny clue that all the others had missed."),
            ("praise", "You have the sharpest eyes of all"),
        ],
        &[
            ("game", "circus"),
            ("talent", "{Friend} could stand on {friend.his} hands and walk three steps."),
            ("praise", "Nobody else can do that"),
        ],
    ],
    paragraphs: &[
        &[
            INTRODUCTION,
            HABIT,
            always(&[
                "One {weather} {time}, {he} was playing {game} with some friends {in}. {Sight}",
                "One {weather} {time}, {hero} and {his} friends met {in} to play {game}. {Sky}",
            ]),
        ],
        &[
            always(&[
                "Then {he} saw somebody new. {A friend.kind} stood {spot} and watched them, but {friend.he} did not come nearer.",
                "{A friend.kind} whom {he} had never seen before was sitting alone {spot}.",
            ]),
            sometimes(
                75,
                &[
                    "\"Who is that?\" asked one of the others. \"I do not know,\" said {hero}. \"But {friend.he} looks lonely.\"",
                    "The others went on with their game, but {hero} could not stop looking. {He} remembered how it felt to be alone.",
                ],
            ),
        ],
        &[
            always(&[
                "{Hero} walked over and smiled. \"Hello, I am {hero},\" {he} said. \"What is your name?\"",
                "{Hero} took a deep breath and went over. \"Hello,\" {he} said. \"My name is {hero}. Who are you?\"",
            ]),
            always(&[
                "\"I am {friend},\" said the {friend.kind} very softly. \"We moved here yesterday, and I do not know anybody.\"",
                "The {friend.kind} looked down. \"{Friend},\" {friend.he} said. \"I am new here.\"",
            ]),
            always(&[
                "\"Now you know me,\" said {hero}. \"Do you want to play {game} with us?\"",
                "\"Come and play {game} with us,\" said {hero}. \"We need one more.\"",
            ]),
            sometimes(
                45,
                &[
                    "{Friend} was not sure. \"I may not be very good,\" {friend.he} said. \"That does not matter at all,\" said {hero}.",
                    "\"May I?\" asked {friend}, and for the first time {friend.he} smiled.",
                ],
            ),
        ],
        &[
            always(&["{Talent}"]),
            always(&["\"{Praise}!\" said {hero}.", "The others were amazed. \"{Praise}!\" they said."]),
            sometimes(
                40,
                &[
                    "{Friend} laughed, and {friend.he} was not shy any more.",
                    "{Friend}'s cheeks turned pink with joy.",
                ],
            ),
            sometimes(
                40,
                &[
                    "When it grew dark, {friend} asked, \"Will you be here tomorrow?\" \"Of course,\" said {hero}. \"We will wait for you.\"",
                    "On the way home, {friend} said, \"This morning I had no friends, and now I have so many.\"",
                ],
            ),
            always(&[
                "{Hero} had learned that one friendly word can open a door.",
                "From that day on, the two of them were never far apart.",
                "And whenever somebody new came along, it was {friend} who said hello first.",
            ]),
        ],
    ],
};
