#!/usr/bin/env bash
# SimpleITK 2.5.7 (ITK 5.4) and antspyx 0.6.3.
# A text transform file (.tfm) that lists two transforms without a composite before them, as ITK's own writer leaves it
# when it is given a list: SimpleITK takes the first alone, ANTs applies both, the last one first. antspyx calls what it
# read by the type of the first, though its parameters are those of both.
# It surprises because one file then stands for two transforms, each read without an error by a tool of the same family;
# SimpleITK's warning is all that is said. With a composite before them, the two tools agree.
# Seen: a shift by (1, 2, 3), then a turn by 0.1 rad about x with a shift by 5: the point (10, 20, 30) goes to
# (11, 22, 33) by SimpleITK and to (16, 18.905, 34.847) by ANTs, which says "TranslationTransform" with 9 parameters.
# Run with Python 3.11 on Linux, x86-64.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    SimpleITK==2.5.7 antspyx==0.6.3 itk==5.4.7 numpy==2.3.5
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import ants
import itk
import numpy as np
import SimpleITK as sitk

failed = False


def check(what, seen, expected):
    global failed
    print(f"{what}: {seen}")
    same = seen == expected if isinstance(expected, str) else np.allclose(seen, expected, atol=1e-3)
    if not same:
        failed = True
        print(f"  expected {expected}")


shift = itk.TranslationTransform[itk.D, 3].New()
shift.SetOffset((1.0, 2.0, 3.0))
turn = itk.Euler3DTransform[itk.D].New()
turn.SetRotation(0.1, 0.0, 0.0)
turn.SetTranslation((5.0, 0.0, 0.0))
itk.transformwrite([shift, turn], "list.tfm")
print(open("list.tfm").read())

point = (10.0, 20.0, 30.0)
first, second = sitk.TranslationTransform(3, (1.0, 2.0, 3.0)), sitk.Euler3DTransform((0, 0, 0), 0.1, 0, 0, (5.0, 0, 0))
both = sitk.CompositeTransform([first, second])
check("itk reads transforms", len(itk.transformread("list.tfm")), 2)

by_itk, by_ants = sitk.ReadTransform("list.tfm"), ants.read_transform("list.tfm")
check("SimpleITK", by_itk.TransformPoint(point), first.TransformPoint(point))
check("ANTs", by_ants.apply_to_point(point), both.TransformPoint(point))
check("type that antspyx names", by_ants.transform_type, "TranslationTransform")
check("number of its parameters", len(by_ants.parameters), 9)

sitk.WriteTransform(both, "composite.tfm")
check("composite, SimpleITK", sitk.ReadTransform("composite.tfm").TransformPoint(point), both.TransformPoint(point))
check("composite, ANTs", ants.read_transform("composite.tfm").apply_to_point(point), both.TransformPoint(point))
sys.exit(failed)
PY
