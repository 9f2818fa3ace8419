"""Points of two oblique images, written as users have them, and carried by one transform."""

import json

import numpy as np
from bundle.commands.apply_points import apply_points
from bundle.io.itk import write_transform
from bundle.spatial import SpatialTransform
from tests.spatial.oblique import oblique

FIELD = oblique((19, 23, 17), (2.2, 1.7, 2.9), (4, 7, -12), (13.0, -20.0, 29.0))
FIXED, MOVING = oblique((11, 9, 13), (1.6, 2.1, 1.3)), oblique((15, 12, 18), (1.9, 2.3, 1.2), (-6, 15, 8))
RAS = np.array([-1, -1, 1])
MARKUPS = {
    "@schema": "markups-schema-v1.0.3.json#",
    "markups": [{"type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": "mm", "locked": True}],
}


def write_csv(path, points, header="name,x,y,z,note", separator=","):
    rows = [header.replace(",", separator)]
    rows += [separator.join([f"F-{n}", *(f"{v:.9f}" for v in point), "kept"]) for n, point in enumerate(points)]
    path.write_text("\n".join(rows) + "\n")
    return str(path)


def write_markups(path, points, **changes):
    content = json.loads(json.dumps(MARKUPS))
    controls = [{"id": str(n), "label": f"F-{n}", "position": list(p)} for n, p in enumerate(points)]
    controls.append({"id": "x", "label": "not placed", "position": None, "positionStatus": "undefined"})
    content["markups"][0] |= {"controlPoints": controls, "measurements": [{"name": "length", "value": 1}]} | changes
    path.write_text(json.dumps(content))
    return str(path)


def write_fcsv(path, points, system="LPS"):
    lines = ["# Markups fiducial file version = 4.11", f"# CoordinateSystem = {system}"] if system else []
    lines.append("# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID")
    lines += [f"{n},{p[0]},{p[1]},{p[2]},0,0,0,1,1,1,0,F-{n},,n1" for n, p in enumerate(points)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def run(folder, points, ending=".csv", **options):
    output = folder / f"out{ending}"
    result = apply_points(str(folder / "transform.h5"), points, str(output), **options)
    return output, result


def everywhere(folder):
    """Write a linear transform, which reaches every point."""
    shift = np.eye(4)
    shift[:3, 3] = 1
    write_transform(SpatialTransform(shift, None, FIXED, FIXED, MOVING), folder / "linear.h5")
    return folder / "linear.h5"
