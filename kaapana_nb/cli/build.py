"""``kaapana-nb build``: from exported files to images with digests."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from kaapana_nb.errors import UsageError
from kaapana_nb.files import write_atomic
from kaapana_nb.reference import ImageReference
from kaapana_nb.settings import Settings

_EXAMPLE = """\
example:
  kaapana-nb build build/otsus-method --push localhost:5000
  kaapana-nb build build/otsus-method --archive otsus-method.tar

The registry's password is never an argument: it comes from --creds-file (a Docker config.json or
.dockerconfigjson), from KAAPANA_NB_REGISTRY_USER and KAAPANA_NB_REGISTRY_PASSWORD, or from where
`podman login` and `docker login` keep it.
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "build", help="build the images of an export, push them, print references with digests",
        description="Build every processing container of DIR into an image, without Docker and without privileges.",
        epilog=_EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("directory", type=Path, metavar="DIR", help="what `kaapana-nb export` wrote")
    parser.add_argument(
        "--builder", default="auto", metavar="NAME", help="auto (default), layers, buildah, podman, docker, proot"
    )
    parser.add_argument("--push", metavar="REGISTRY", help="host[:port][/project] to push to")
    parser.add_argument("--archive", type=Path, metavar="FILE", help="also write the image to one file")
    parser.add_argument("--base", metavar="REF|DIR", help="base image instead of the Dockerfile's FROM")
    parser.add_argument("--wheelhouse", type=Path, metavar="DIR", help="take wheels from here, download nothing")
    parser.add_argument(
        "--batch", type=Path, metavar="DIR", help="search the files for this batch's patients, as export does"
    )
    tags = parser.add_mutually_exclusive_group()
    tags.add_argument("--tag", default="", help="tag instead of the label VERSION")
    tags.add_argument("--platform-version", metavar="V", help="tag as a platform of this (build) version expects it")
    parser.add_argument("--creds-file", type=Path, metavar="FILE", help="credentials of the registry")
    parser.add_argument("--ca-file", type=Path, metavar="FILE", help="private certificate authority in PEM")
    parser.add_argument("--plain-http", action="store_true", help="talk to the registry without TLS")
    parser.add_argument(
        "--job", type=Path, metavar="FILE", help="build nothing: write a job for the cluster, which does"
    )
    parser.add_argument("--job-secret", default="registry-secret", metavar="NAME", help="the job's credentials")
    parser.add_argument("--job-namespace", default="default", metavar="NAME", help="where the job runs")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(handler=build)


def build(args: argparse.Namespace) -> int:
    """Build, push, write the archive, print."""
    from kaapana_nb.ship.archive import write_archive
    from kaapana_nb.ship.build import build_image, find_contexts, push_image, push_target, registry_client
    from kaapana_nb.ship.context_guard import batch_to_guard, guard_context
    from kaapana_nb.ship.wheelhouse import wheelhouse_of

    settings = Settings.from_environ()
    contexts = find_contexts(args.directory)
    if args.job is not None:
        return _write_job(args, contexts)
    if args.archive is not None and len(contexts) != 1:
        raise UsageError(
            f"--archive takes one image; {args.directory} has {len(contexts)} processing containers.",
            f"Name one of them: {contexts[0]}",
        )
    batch = batch_to_guard(args.batch)
    for context in contexts:
        guard_context(args.directory, context, batch=batch)
    images = []
    for context in contexts:
        name = _name(args, context)
        options = {
            "settings": settings, "builder": args.builder, "base": args.base,
            "wheelhouse": args.wheelhouse or wheelhouse_of(args.directory),
            "tag": name.tag, "log": _say,
        }  # fmt: skip
        if args.push is None:
            image = build_image(context, **options)
            if args.archive is not None:
                _say(f"wrote {write_archive(image, args.archive)}: no registry was named (--push)")
            else:
                _say(f"the image stays in {image.layout}: neither a registry (--push) nor a file (--archive) was named")
        else:
            target = push_target(args.push, name)
            with registry_client(
                target.registry, target.repository, creds_file=args.creds_file, ca_file=args.ca_file,
                plain_http=True if args.plain_http else None,
            ) as client:  # fmt: skip
                client.probe(target.repository)
                _say(f"registry {target.registry} answers and takes {target.repository} from {client.identity}")
                image = push_image(build_image(context, client=client, **options), target, client=client, log=_say)
                if args.archive is not None:
                    _say(f"wrote {write_archive(image, args.archive, client=client)}")
        images.append(image)
        if image.sbom is not None:
            _keep_sbom(image.sbom, args.directory / f"{image.name}.cdx.json")
    rows = [
        {
            "name": image.name,
            "reference": str(image.reference),
            "digest": image.digest,
            "bytes_uploaded": image.bytes_uploaded,
            "seconds": round(image.seconds, 3),
        }
        for image in images
    ]
    if args.json:
        print(json.dumps({"images": rows}, indent=1))
    else:
        for image in images:
            print(image.reference.with_digest(image.digest))
    return 0


def _name(args: argparse.Namespace, context: Path) -> ImageReference:
    """Name and tag of a context's image."""
    from kaapana_nb.ship.build import image_name, platform_tag
    from kaapana_nb.ship.dockerfile import read_dockerfile

    dockerfile = read_dockerfile(context, lenient=True)
    tag = platform_tag(dockerfile, args.platform_version) if args.platform_version else args.tag
    return image_name(dockerfile, context, tag)


def _write_job(args: argparse.Namespace, contexts: list[Path]) -> int:
    """Write the manifests of a build in the cluster."""
    from kaapana_nb.ship.build import push_target
    from kaapana_nb.ship.cluster_job import ClusterJob, render_job

    if len(contexts) != 1 or args.push is None or args.base is None:
        raise UsageError(
            f"--job takes one processing container ({len(contexts)} found), --push and --base.",
            f"Write: kaapana-nb build {contexts[0]} --job FILE --push REGISTRY --base REGISTRY/NAME:TAG",
        )
    name = _name(args, contexts[0])
    job = ClusterJob(
        target=push_target(args.push, name), base=ImageReference.parse(args.base), secret=args.job_secret,
        namespace=args.job_namespace, plain_http=args.plain_http,
    )  # fmt: skip
    write_atomic(args.job, render_job(contexts[0], job).encode())
    _say(f"start it: kubectl apply -f {args.job}")
    print(json.dumps({"job": str(args.job), "reference": str(job.target)}) if args.json else job.target)
    return 0


def _keep_sbom(source: Path, target: Path) -> None:
    """Put the bill of materials beside the export, where that can be written."""
    try:
        write_atomic(target, source.read_bytes())
    except OSError as error:
        _say(f"the bill of materials stays in {source}: {target} cannot be written ({error.strerror})")
    else:
        _say(f"wrote {target}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
