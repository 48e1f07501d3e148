"""The emoji as a training run takes them: each with its name, its picture, and one of eight groups that its name says.

A group is a set of words: the first whose words are in a name has it. Those in none (tools, people, letters) have the
empty group.
"""

from collections.abc import Mapping

from PIL import Image

from surgery.demo.pictures import load_pictures
from surgery.training.dit.pictures import DrawnEmoji

GROUPS: Mapping[str, frozenset[str]] = {
    name: frozenset(words.split())
    for name, words in {
        "sky": "sun moon star cloud rainbow comet milky sunrise sunset snowflake tornado fog lightning glowing"
        " planet globe stars sparkles",
        "hearts": "heart hearts",
        "animals": "cat dog monkey gorilla orangutan poodle wolf fox raccoon lion tiger leopard horse moose donkey"
        " unicorn zebra deer bison cow ox buffalo pig boar ram ewe goat camel llama giraffe elephant"
        " mammoth rhinoceros hippopotamus mouse rat hamster rabbit chipmunk beaver hedgehog bat bear koala"
        " panda sloth otter skunk kangaroo badger turkey chicken rooster chick bird penguin dove eagle"
        " duck swan owl dodo flamingo peacock parrot goose frog crocodile turtle lizard snake dragon"
        " sauropod rex whale dolphin seal fish blowfish shark octopus shell jellyfish snail butterfly bug"
        " ant honeybee beetle cricket cockroach spider scorpion mosquito fly worm squid crab lobster"
        " shrimp oyster",
        "faces": "face grinning kiss lying",
        "plants": "tree flower blossom rose tulip hibiscus sunflower bouquet lotus hyacinth seedling plant cactus"
        " herb shamrock clover leaf sheaf mushroom wilted",
        "food": "bread croissant bagel pancakes waffle cheese meat poultry bacon hamburger fries pizza sandwich"
        " taco burrito tamale egg cooking food stew bowl salad popcorn butter salt rice ramen spaghetti"
        " sushi dango dumpling cake cookie pie chocolate candy lollipop custard honey milk coffee tea sake"
        " wine beer cocktail drink juice cup grapes melon watermelon tangerine lemon lime banana pineapple"
        " mango apple pear peach cherries strawberry blueberries kiwi tomato olive coconut avocado"
        " eggplant potato carrot corn pepper cucumber broccoli garlic onion peanuts beans chestnut ginger"
        " oden doughnut cream shortcake cupcake fondue baguette bottle",
        "vehicles": "car taxi bus minibus trolleybus train locomotive metro tram railway monorail truck lorry tractor"
        " ambulance engine motorcycle scooter bicycle skateboard ship boat ferry canoe sailboat speedboat"
        " airplane helicopter rocket saucer cableway sled vehicle",
        "clothes": "shirt t jeans scarf gloves coat socks dress kimono sari swimsuit shorts bikini clothes purse"
        " handbag bag backpack shoe sandal boot boots hat cap helmet crown glasses goggles necktie ring"
        " lipstick",
    }.items()
}


def draw_all_emoji() -> list[DrawnEmoji]:
    """All of them; raises InputError where the font is not installed."""
    emoji, pixels = load_pictures()
    return [
        DrawnEmoji(one.caption, group_of(one.caption), Image.fromarray(picture))
        for one, picture in zip(emoji, pixels, strict=True)
    ]


def group_of(caption: str) -> str:
    """The group of a name; empty where it is in none."""
    words = set(caption.split())
    return next((name for name, own in GROUPS.items() if not own.isdisjoint(words)), "")
