"""Build the images of this directory with kaapana-nb's own builders, and push them if a registry is named.

    .venv/bin/python docker/make.py                                   all of them
    .venv/bin/python docker/make.py jupyterlab --push localhost:5000  one, pushed

The base image comes from ``docker/base-python-cpu``. Credentials are found as ``kaapana-nb build`` finds them.
Prints one reference with digest a line, and the size of the unpacked layers in megabytes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import zlib
from pathlib import Path

from kaapana_nb.clients.layout import OciLayout
from kaapana_nb.errors import KaapanaNbError
from kaapana_nb.settings import Settings
from kaapana_nb.ship.build import BuiltImage, build_image, image_name, push_image, push_target, registry_client
from kaapana_nb.ship.dockerfile import read_dockerfile
from kaapana_nb.ship.own_images import OWN_IMAGES, make_own_context

HERE = Path(__file__).parent


def say(line: str) -> None:
    """Progress goes to standard error."""
    print(line, file=sys.stderr, flush=True)


def unpacked_mb(image: BuiltImage) -> float:
    """Size of all layers' tar files, in megabytes."""
    layout = OciLayout(image.layout)
    total = 0
    for layer in layout.image().manifest.layers:
        data = layout.blob_path(layer.digest).read_bytes()
        while data:
            inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
            while not inflate.eof:
                total += len(inflate.decompress(data, 1 << 24))
                data = inflate.unconsumed_tail
            data = inflate.unused_data
    return total / 1e6


def make(name: str, work: Path, registry: str | None, builder: str, base: str | None) -> BuiltImage:
    """Build one image; push it when `registry` is named."""
    settings = Settings.from_environ()
    context = make_own_context(name, HERE, work)
    if registry is None:
        return build_image(context, settings=settings, builder=builder, base=base, log=say)
    target = push_target(registry, image_name(read_dockerfile(context), context))
    with registry_client(target.registry, target.repository) as client:
        client.probe(target.repository)
        image = build_image(context, settings=settings, builder=builder, base=base, client=client, log=say)
        return push_image(image, target, client=client, log=say)


def main() -> int:
    """Read the arguments, build, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(OWN_IMAGES)}; default: all")
    parser.add_argument("--push", metavar="REGISTRY")
    parser.add_argument("--builder", default="auto")
    parser.add_argument("--base", metavar="REF|DIR", help="base image, for example REGISTRY/NAME@sha256:…")
    args = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="kaapana-nb-") as work:
            for name in args.names or OWN_IMAGES:
                image = make(name, Path(work), args.push, args.builder, args.base)
                print(image.reference.with_digest(image.digest), f"{unpacked_mb(image):.0f} MB", flush=True)
    except KaapanaNbError as error:
        say(f"{error.problem}\n  remedy: {error.remedy}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
