"""Copy an extension's DAGs, operators and scripts to the platform, or remove them: the DAG image's command.

Environment: ``TARGET_DIR`` holds the platform's directories ``dags plugins mounted_scripts extensions``;
``ACTION`` is ``copy`` (default) or ``remove``. Prints the images that the files name, which the platform pulls.
"""

import ast
import os
import sys
from pathlib import Path

SOURCES = {
    "dags": ("kaapana/tmp/dags", "tmp/dags"),
    "plugins": ("kaapana/tmp/plugins",),
    "mounted_scripts": ("kaapana/tmp/mounted_scripts",),
    "extensions": ("kaapana/tmp/extensions",),
}


def files(root: Path):
    """(file of the image, path below the target) of everything that the image brings."""
    for kind, directories in SOURCES.items():
        for directory in directories:
            source = root / directory
            for path in sorted(source.rglob("*")):
                if path.is_file() and not path.is_symlink():
                    yield path, Path(kind) / path.relative_to(source)


def images(path: Path):
    """Literals of ``image=`` in a Python file."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "image":
            yield ast.unparse(node.value)


def main() -> int:
    """Copy or remove, one file after the other; each appears whole."""
    root = Path(os.environ.get("SOURCE_ROOT", "/"))
    target, action = os.environ.get("TARGET_DIR", ""), os.environ.get("ACTION", "copy")
    if action not in {"copy", "remove"} or not Path(target).is_dir() or not target:
        print(f"ACTION is {action!r} (copy or remove), TARGET_DIR is {target!r} (a directory)", file=sys.stderr)
        return 2
    count = 0
    for source, inside in files(root):
        place = Path(target) / inside
        count += 1
        if action == "remove":
            place.unlink(missing_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f".{place.name}.part")
        part.write_bytes(source.read_bytes())
        part.replace(place)
        if source.suffix == ".py":
            for image in images(source):
                print(f"image {image}")
    print(f"{action} {count} files")
    return 0 if count else 1


if __name__ == "__main__":
    sys.exit(main())
