"""How the instances of a series lie in space: order, spacing, gaps, tilt (PS3.3 C.7.6.2)."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

from kaapana_nb.data.header import InstanceHeader

SPACING_TOLERANCE = 0.02
"""Neighbours may differ from the median distance by this part of it: positions are rounded decimal text."""
SPACING_TOLERANCE_MM = 0.01
"""... or by this much, where slices are thin."""
COSINE_TOLERANCE = 1e-4
"""Direction cosines of one series differ by less: they are written with four to sixteen decimals."""
TILT_TOLERANCE_MM = 0.01
"""In-plane displacement from slice to slice below which a stack counts as straight."""

_GEOMETRY = operator.attrgetter(
    "rows", "columns", "samples_per_pixel", "pixel_spacing", "image_orientation", "number_of_frames"
)
Vector = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Where the slices of a series lie.

    Attributes
    ----------
    order
        Indices of the headers by increasing position along the normal (by InstanceNumber where there is
        no position).
    spacing_mm
        Distances along columns, rows and slices (x, y, z as in SimpleITK); the slice distance is the mean
        of the positions' distances, or SliceThickness for one slice, or 1.
    origin
        LPS position of the first pixel of the first slice, mm.
    direction
        3 x 3, row by row; columns are the directions of increasing column, row and slice index.
    placed
        Whether the instances have position and orientation.
    gaps
        For each missing stretch: index in `order` of the slice before it, and the number of slices missing.
    uneven_mm
        Largest difference of a distance from the median one, mm, where it is over the tolerance and no gap.
    repeated
        Number of instances that lie where another one lies.
    tilt_mm
        Displacement from slice to slice along columns and rows, mm; (0, 0) for a straight stack.
    """

    order: tuple[int, ...]
    spacing_mm: Vector
    origin: Vector
    direction: tuple[float, ...]
    placed: bool
    gaps: tuple[tuple[int, int], ...] = ()
    uneven_mm: float = 0.0
    repeated: int = 0
    tilt_mm: tuple[float, float] = (0.0, 0.0)

    @property
    def complete(self) -> bool:
        """Whether the slices are evenly spaced, each position taken once."""
        return not self.gaps and not self.uneven_mm and not self.repeated


def stack_of(headers: Sequence[InstanceHeader]) -> Stack:
    """The geometry of instances that have the same size and orientation (see `split_geometry`)."""
    first = headers[0]
    in_plane = _in_plane_spacing(first)
    axes = orthonormal(first.image_orientation)
    if axes is None or any(_position(header) is None for header in headers):
        return _unplaced(headers, in_plane, axes)
    x_axis, y_axis, normal = axes
    places = [position for header in headers if (position := _position(header)) is not None]
    depths = [_dot(normal, place) for place in places]
    order = sorted(range(len(headers)), key=lambda index: (depths[index], headers[index].instance_number or 0, index))
    steps = [depths[after] - depths[before] for before, after in itertools.pairwise(order)]
    distinct = [step for step in steps if step > SPACING_TOLERANCE_MM / 10]
    repeated = len(steps) - len(distinct)
    origin = places[order[0]]
    tilt = (0.0, 0.0)
    gaps: list[tuple[int, int]] = []
    uneven = 0.0
    if distinct:
        median = sorted(distinct)[(len(distinct) - 1) // 2]  # of two steps the smaller: the other is a gap
        tolerance = max(SPACING_TOLERANCE_MM, SPACING_TOLERANCE * median)
        for index, step in enumerate(steps):
            if step <= SPACING_TOLERANCE_MM / 10 or abs(step - median) <= tolerance:
                continue
            times = round(step / median)
            if times >= 2 and abs(step - times * median) <= tolerance * times:
                gaps.append((index, times - 1))
            else:
                uneven = max(uneven, abs(step - median))
        count = len(distinct) + sum(missing for _, missing in gaps)
        depth = (depths[order[-1]] - depths[order[0]]) / count
        shift = _minus(places[order[-1]], origin)
        tilt = (_dot(x_axis, shift) / count, _dot(y_axis, shift) / count)
        if math.hypot(*tilt) <= TILT_TOLERANCE_MM:
            tilt = (0.0, 0.0)
    else:
        depth = _single_depth(first)
    return Stack(
        order=tuple(order),
        spacing_mm=(in_plane[0], in_plane[1], depth),
        origin=origin,
        direction=_matrix(x_axis, y_axis, normal),
        placed=True,
        gaps=tuple(gaps),
        uneven_mm=uneven,
        repeated=repeated,
        tilt_mm=tilt,
    )


def split_geometry(headers: Sequence[InstanceHeader]) -> list[list[int]]:
    """Indices of the headers grouped by size, pixel spacing and orientation, the largest group first."""
    groups: list[tuple[InstanceHeader, list[int]]] = []
    by_key: dict[tuple[object, ...], list[int]] = {}
    keys = list(map(_GEOMETRY, headers))
    if len(set(keys)) == 1:
        return [list(range(len(headers)))]
    for index, (header, key) in enumerate(zip(headers, keys, strict=True)):
        members = by_key.get(key)
        if members is None:
            members = next((found for sample, found in groups if _same_geometry(sample, header)), None)
            if members is None:
                members = []
                groups.append((header, members))
            by_key[key] = members
        members.append(index)
    return sorted((members for _, members in groups), key=len, reverse=True)


def orthonormal(orientation: tuple[float, ...] | None) -> tuple[Vector, Vector, Vector] | None:
    """Unit vectors of columns, rows and slices; ``None`` where the orientation is absent or impossible.

    Cosines are decimal text: they are put right to exactly orthogonal unit vectors, as ITK does not.
    """
    if orientation is None or len(orientation) != 6:
        return None
    x_axis = _unit((orientation[0], orientation[1], orientation[2]))
    y_raw = _unit((orientation[3], orientation[4], orientation[5]))
    if x_axis is None or y_raw is None or abs(_dot(x_axis, y_raw)) > 0.01:
        return None
    return x_axis, y_raw, _cross(x_axis, y_raw)


def _same_geometry(left: InstanceHeader, right: InstanceHeader) -> bool:
    if (left.rows, left.columns, left.samples_per_pixel, left.number_of_frames) != (
        right.rows, right.columns, right.samples_per_pixel, right.number_of_frames,
    ):  # fmt: skip
        return False
    return _close(left.pixel_spacing, right.pixel_spacing, 1e-3) and _close(
        left.image_orientation, right.image_orientation, COSINE_TOLERANCE
    )


def _close(left: tuple[float, ...] | None, right: tuple[float, ...] | None, tolerance: float) -> bool:
    if left is None or right is None:
        return left is right
    return len(left) == len(right) and all(abs(a - b) <= tolerance for a, b in zip(left, right, strict=True))


def _unplaced(
    headers: Sequence[InstanceHeader], in_plane: tuple[float, float], axes: tuple[Vector, Vector, Vector] | None
) -> Stack:
    order = sorted(
        range(len(headers)), key=lambda index: (headers[index].instance_number or 0, headers[index].file_name)
    )
    place = _position(headers[order[0]]) if len(headers) == 1 else None
    return Stack(
        order=tuple(order),
        spacing_mm=(in_plane[0], in_plane[1], _single_depth(headers[0])),
        origin=place or (0.0, 0.0, 0.0),
        direction=_matrix(*axes)
        if axes is not None and place is not None
        else _matrix((1, 0, 0), (0, 1, 0), (0, 0, 1)),
        placed=False,
    )


def _position(header: InstanceHeader) -> Vector | None:
    position = header.image_position
    return None if position is None or len(position) != 3 else (position[0], position[1], position[2])


def _in_plane_spacing(header: InstanceHeader) -> tuple[float, float]:
    """Distances along columns and rows; 1 where the file has none (PixelSpacing is rows first)."""
    spacing = header.pixel_spacing
    if spacing is None or len(spacing) != 2 or not all(value > 0 for value in spacing):
        return 1.0, 1.0
    return spacing[1], spacing[0]


def _single_depth(header: InstanceHeader) -> float:
    thickness = header.slice_thickness_mm
    return thickness if thickness is not None and thickness > 0 else 1.0


def _matrix(x_axis: Vector, y_axis: Vector, normal: Vector) -> tuple[float, ...]:
    return tuple(float(axis[row]) for row in range(3) for axis in (x_axis, y_axis, normal))


def _unit(vector: Vector) -> Vector | None:
    length = math.sqrt(_dot(vector, vector))
    return None if not 0.5 < length < 2 else (vector[0] / length, vector[1] / length, vector[2] / length)


def _dot(left: Vector, right: Vector) -> float:
    return left[0] * right[0] + left[1] * right[1] + left[2] * right[2]


def _minus(left: Vector, right: Vector) -> Vector:
    return left[0] - right[0], left[1] - right[1], left[2] - right[2]


def _cross(left: Vector, right: Vector) -> Vector:
    return (
        left[1] * right[2] - left[2] * right[1],
        left[2] * right[0] - left[0] * right[2],
        left[0] * right[1] - left[1] * right[0],
    )
