//! The characters, the place and the day of a story.

use super::grammar::{Random, Scene};

/// Who may be the hero of a plot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// A child or an animal that lives as children do.
    Anyone,
    /// A child.
    Child,
}

const GIRLS: &[&str] = &[
    "Lucy", "Anna", "Mia", "Ella", "Ruby", "Nora", "Clara", "Daisy", "Poppy", "Maya", "Zoe", "Ivy", "Rosa",
    "Tilly", "Hana", "Leah", "Amy", "Sara", "Nina", "Kate",
];
const BOYS: &[&str] = &[
    "Ben", "Sam", "Leo", "Max", "Tom", "Jack", "Finn", "Oscar", "Theo", "Noah", "Adam", "Hugo", "Milo",
    "Ravi", "Omar", "Eli", "Luke", "Toby", "Kai", "Dan",
];
const SHE_ANIMALS: &[&str] =
    &["Clover", "Hazel", "Willow", "Fern", "Maple", "Tansy", "Ginger", "Sunny", "Dotty", "Nutmeg"];
const HE_ANIMALS: &[&str] =
    &["Pip", "Bramble", "Thistle", "Biscuit", "Pippin", "Rusty", "Dusty", "Barley", "Tumble", "Patch"];
const ANIMALS: &[&str] =
    &["rabbit", "fox", "bear", "mouse", "hedgehog", "squirrel", "otter", "badger", "mole", "beaver"];

const ELDERS: &[(&str, bool)] = &[
    ("Mum", true),
    ("Dad", false),
    ("Grandma", true),
    ("Grandpa", false),
    ("Aunt Rose", true),
    ("Uncle Ned", false),
];

const TRAITS: &[&str] = &[
    "curious",
    "cheerful",
    "gentle",
    "brave",
    "quiet",
    "clever",
    "busy",
    "kind",
    "lively",
    "shy",
    "friendly",
    "thoughtful",
];
const HOBBIES: &[&str] = &[
    "count the clouds",
    "sing to the birds",
    "listen to stories",
    "collect smooth stones",
    "dance in the kitchen",
    "look for snails after the rain",
    "build little houses out of sticks",
    "hum happy tunes",
    "draw pictures of the moon",
    "ask questions about everything",
    "jump over puddles",
    "watch the ants at work",
];
const HOUSES: &[&str] = &[
    "in a small house by the sea",
    "in a yellow house at the end of the lane",
    "in a village under the hills",
    "in a tall house with a green door",
    "on a farm near the river",
    "in a little house with roses by the gate",
];
const BURROWS: &[&str] = &[
    "in a cosy hole under an old oak",
    "at the edge of the woods",
    "in a snug den near the pond",
    "in a warm burrow under the hill",
    "in a little house made of twigs",
];

struct Place {
    name: &'static str,
    inside: &'static str,
    sight: &'static str,
    spots: &'static [&'static str],
}

const PLACES: &[Place] = &[
    Place {
        name: "the garden",
        inside: "in the garden",
        sight: "Bees hummed around the flowers.",
        spots: &[
            "behind the rose bush",
            "under the apple tree",
            "beside the watering can",
            "next to the bean poles",
            "behind the shed",
        ],
    },
    Place {
        name: "the park",
        inside: "in the park",
        sight: "Ducks were swimming on the pond.",
        spots: &[
            "under the wooden bench",
            "behind the big oak tree",
            "beside the fountain",
            "next to the swings",
            "near the flower bed",
        ],
    },
    Place {
        name: "the meadow",
        inside: "in the meadow",
        sight: "Yellow flowers nodded in the grass.",
        spots: &[
            "in the tall grass",
            "beside the old fence",
            "under the willow tree",
            "behind a grey rock",
            "next to the little stream",
        ],
    },
    Place {
        name: "the beach",
        inside: "on the beach",
        sight: "Small waves rolled onto the sand.",
        spots: &[
            "behind the tall rock",
            "beside the rock pool",
            "under the upturned boat",
            "next to the sandcastle",
            "at the foot of the dune",
        ],
    },
    Place {
        name: "the woods",
        inside: "in the woods",
        sight: "The light fell in spots through the leaves.",
        spots: &[
            "under the ferns",
            "behind a mossy log",
            "beside the old stump",
            "between the roots of a tall tree",
            "near the blackberry bush",
        ],
    },
    Place {
        name: "the farm",
        inside: "on the farm",
        sight: "Hens pecked at the ground in the yard.",
        spots: &[
            "behind the barn",
            "beside the haystack",
            "under the old cart",
            "next to the well",
            "near the henhouse",
        ],
    },
    Place {
        name: "the riverbank",
        inside: "by the river",
        sight: "The water sparkled as it ran over the stones.",
        spots: &[
            "under the stone bridge",
            "among the reeds",
            "beside the stepping stones",
            "behind the willow",
            "on the flat rock by the water",
        ],
    },
];

/// An adjective for the day, and a sentence about the sky.
const DAYS: &[(&str, &str)] = &[
    ("sunny", "The sky was blue and the grass was warm."),
    ("bright", "There was not a cloud in the sky."),
    ("windy", "The wind played with the leaves."),
    ("cloudy", "Big grey clouds drifted slowly by."),
    ("cool", "The air smelled of wet leaves."),
    ("warm", "The air was soft and smelled of flowers."),
    ("misty", "A thin mist hung over the ground."),
];

/// Casts a hero, a friend of the other sex (so that `he` and `she` are never ambiguous) and an elder, and sets the
/// place and the day.
pub fn set_scene(who: Who, random: &mut Random) -> Scene {
    let mut scene = Scene::default();
    let hero_is_she = random.chance(50);
    let is_child = who == Who::Child || random.chance(65);
    let (hero_kind, friend_kind) = if is_child {
        let kind = |she| if she { "girl" } else { "boy" };
        (kind(hero_is_she), kind(!hero_is_she))
    } else {
        let kinds = random.pick_several(ANIMALS, 2);
        (kinds[0], kinds[1])
    };
    let name = |she, random: &mut Random| {
        random.pick(match (is_child, she) {
            (true, true) => GIRLS,
            (true, false) => BOYS,
            (false, true) => SHE_ANIMALS,
            (false, false) => HE_ANIMALS,
        })
    };
    scene.set("hero", name(hero_is_she, random));
    scene.set("friend", name(!hero_is_she, random));
    scene.set("kind", hero_kind);
    scene.set("friend.kind", friend_kind);
    scene.set("home", random.pick(if is_child { HOUSES } else { BURROWS }));
    let (elder, elder_is_she) = ELDERS[random.below(ELDERS.len())];
    scene.set("elder", elder);
    pronouns(&mut scene, ["he", "him", "his", "himself"], hero_is_she);
    pronouns(&mut scene, ["friend.he", "friend.him", "friend.his", "friend.himself"], !hero_is_she);
    pronouns(&mut scene, ["elder.he", "elder.him", "elder.his", "elder.himself"], elder_is_she);

    scene.set("trait", random.pick(TRAITS));
    scene.set("hobby", random.pick(HOBBIES));
    let place = &PLACES[random.below(PLACES.len())];
    scene.set("place", place.name);
    scene.set("in", place.inside);
    scene.set("sight", place.sight);
    let spots = random.pick_several(place.spots, 3);
    for (slot, spot) in ["spot", "spot2", "spot3"].into_iter().zip(spots) {
        scene.set(slot, spot);
    }
    let (weather, sky) = DAYS[random.below(DAYS.len())];
    scene.set("weather", weather);
    scene.set("sky", sky);
    scene.set("time", random.pick(&["morning", "afternoon", "day"]));
    scene
}

fn pronouns(scene: &mut Scene, slots: [&'static str; 4], is_she: bool) {
    let words = if is_she { ["she", "her", "her", "herself"] } else { ["he", "him", "his", "himself"] };
    for (slot, word) in slots.into_iter().zip(words) {
        scene.set(slot, word);
    }
}
