"""What the judges see in the real emoji, kept beside them: `python -m surgery.demo.reference` makes it again.

Making it needs the training pictures (the `train` extra and the font); reading it needs neither.
"""

import argparse
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file

from surgery.demo.judge_files import (
    CAPTIONS_FILE,
    EXTRACTOR_FILE,
    EXTRACTOR_NAME,
    JUDGES,
    REFERENCE_FILE,
    check_digest,
    record_digests,
)
from surgery.files import hash_file


@dataclass(frozen=True)
class Reference:
    """The real emoji: captions, features (N, 192) in float32, and of which files and pictures they are."""

    captions: tuple[str, ...]
    features: torch.Tensor
    extractor_digest: str
    pictures_digest: str

    def mean(self) -> NDArray[np.float64]:
        """The mean of the features (192,), in float64."""
        return np.asarray(self.features.double().mean(0).numpy())

    def covariance(self) -> NDArray[np.float64]:
        """Their unbiased covariance (192, 192), in float64."""
        return np.cov(self.features.double().numpy(), rowvar=False)


def pictures_digest(pictures: NDArray[np.uint8]) -> str:
    """The SHA-256 of the pixels (N, 64, 64, 3), in the order of the captions."""
    return hashlib.sha256(np.ascontiguousarray(pictures).tobytes()).hexdigest()


def load_reference() -> Reference:
    """Read it; raises InputError where a file is not the recorded one."""
    check_digest(REFERENCE_FILE)
    check_digest(CAPTIONS_FILE)
    with safe_open(REFERENCE_FILE, "pt") as file:
        facts, features = json.loads(file.metadata()["facts"]), file.get_tensor("features")
    captions = tuple(CAPTIONS_FILE.read_text().splitlines())
    return Reference(captions, features, facts["extractor_sha256"], facts["pictures_sha256"])


def make_reference(out: Path = JUDGES) -> None:
    """Write features and captions of the real emoji to a folder of judges, and the digests of all that lies there."""
    from surgery.demo.extractor import extract_features, read_extractor
    from surgery.demo.pictures import load_pictures

    emoji, pictures = load_pictures()
    weights = out / EXTRACTOR_FILE.relative_to(JUDGES)
    features = extract_features(read_extractor(weights), torch.from_numpy(pictures).permute(0, 3, 1, 2))
    facts = {
        "extractor": EXTRACTOR_NAME,
        "extractor_sha256": hash_file(weights),
        "pictures_sha256": pictures_digest(pictures),
        "resize": "none: drawn at 136 x 136, reduced to 64 x 64 by Pillow's Lanczos filter",
    }
    file = out / REFERENCE_FILE.relative_to(JUDGES)
    file.parent.mkdir(parents=True, exist_ok=True)
    one_entry = {"facts": json.dumps(facts)}  # safetensors writes several in any order
    save_file({"features": features.contiguous()}, file, metadata=one_entry)
    text = "".join(f"{item.caption}\n" for item in emoji)
    (out / CAPTIONS_FILE.relative_to(JUDGES)).write_text(text)
    record_digests(out)


def main() -> None:
    """Make the reference of the bundled judges, or of others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=JUDGES, help="folder of judges (default: within the package)")
    make_reference(parser.parse_args().out)


if __name__ == "__main__":
    main()
