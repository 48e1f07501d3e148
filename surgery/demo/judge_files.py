"""Where the bundled judges lie, and the digests that their files must have. Imports nothing heavy."""

from pathlib import Path

from surgery.errors import InputError
from surgery.files import hash_file

JUDGES = Path(__file__).parent / "judges"
EXTRACTOR_NAME = "emoji-features-v1"
EXTRACTOR_FILE = JUDGES / "extractor" / f"{EXTRACTOR_NAME}.safetensors"
EXTRACTOR_STATE = (
    "3860641838d45d4392702a03cf6c429ddda4cdb810bdc1b2351eb271b63ef51e"  # of what is loaded: digest_of_state
)
RESIZE = "none: pictures of 64 x 64 only"
CLIP_NAME = "clip-emoji-v1"
CLIP_FOLDER = JUDGES / "clip" / CLIP_NAME.removeprefix("clip-")
REFERENCE_FILE = JUDGES / "reference" / "features.safetensors"
CAPTIONS_FILE = JUDGES / "reference" / "captions.txt"
DIGESTS_NAME = "SHA256SUMS"


def read_digests(folder: Path = JUDGES) -> dict[str, str]:
    """The recorded digest of every file of a folder, by its path there; the file is as `sha256sum` writes it."""
    lines = (folder / DIGESTS_NAME).read_text().splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def record_digests(folder: Path = JUDGES) -> None:
    """Write the digests of what lies in a folder of judges, the model card left out."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.suffix != ".md")
    names = {file.relative_to(folder).as_posix(): file for file in files if file.name != DIGESTS_NAME}
    text = "".join(f"{hash_file(file)}  {name}\n" for name, file in names.items())
    (folder / DIGESTS_NAME).write_text(text)


def check_digest(file: Path, folder: Path = JUDGES) -> str:
    """The digest of a file; raises InputError where the file is missing or is not the recorded one."""
    name = file.relative_to(folder).as_posix()
    if not file.is_file():
        raise InputError(f"{file} is missing; install the package again")
    recorded, found = read_digests(folder).get(name), hash_file(file)
    if found != recorded:
        raise InputError(
            f"{file} is not the file that this version was released with: its SHA-256 is {found}, "
            f"and {DIGESTS_NAME} says {recorded or 'nothing of it'}; install the package again"
        )
    return found
