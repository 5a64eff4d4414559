"""The same boxes as each annotation tool publishes them, written anew: (folder, file) -> text.

Two ships in ``harbour/a b.png`` of 200 x 100 pixels: one of 40 x 20 turned by 30 degrees clockwise
about (60, 50), and one that is upright. ``empty.png`` shows nothing.
"""

from __future__ import annotations

import json
from pathlib import Path

# Worked out by hand: 20 cos 30 = 17.3205..., 20 sin 30 = 10, 10 cos 30 = 8.6602..., 10 sin 30 = 5.
TURNED = [
    [47.67949192431123, 31.33974596215561],
    [82.32050807568878, 51.33974596215561],
    [72.32050807568878, 68.66025403784438],
    [37.67949192431123, 48.66025403784438],
]
UPRIGHT = [[120.0, 10.0], [150.0, 10.0], [150.0, 25.0], [120.0, 25.0]]
HEIGHT, WIDTH = 100, 200
RADIANS = 0.5235987755982988
FLAT = [value for point in TURNED for value in point]


WEST, NORTH, DEGREES = 10.0, 50.0, 1e-5
"""Longitude and latitude of the upper left corner of the images, and the side of a pixel."""


def write_place(image: Path) -> None:
    """Put the file beside an image that tells GDAL where it lies."""
    transform = f"{WEST}, {DEGREES}, 0, {NORTH}, 0, -{DEGREES}"
    text = f"<SRS>EPSG:4326</SRS><GeoTransform>{transform}</GeoTransform>"
    image.with_name(image.name + ".aux.xml").write_text(f"<PAMDataset>{text}</PAMDataset>")


def dota() -> dict[str, str]:
    lines = [f"{' '.join(map(str, FLAT))} 渔船 1", "120 10 150 10 150 25 120 25 storage tank 0"]
    return {
        "a b.txt": "imagesource:GoogleEarth\ngsd:0.15\n" + "\n".join(lines),
        "empty.txt": "imagesource:GoogleEarth\n",
    }


def yolo_obb() -> dict[str, str]:
    turned = " ".join(str(v / s) for v, s in zip(FLAT, [WIDTH, HEIGHT] * 4))
    return {
        "labels/a b.txt": f"1 {turned}\n0 .6 .1 .75 .1 .75 .25 .6 .25 7\n",  # a track id follows
        "labels/empty.txt": "",
        "data.yaml": "path: ../set\ntrain: images\nnames:\n  0: storage tank\n  1: 渔船\n",
    }


def rolabelimg() -> dict[str, str]:
    head = (
        '<annotation verified="yes">\n<folder>x</folder>\n<filename>{}</filename>\n'
        "<size>\n<width>200</width>\n<height>100</height>\n<depth>3</depth>\n</size>\n"
    )
    objects = f"""<object>
<type>robndbox</type>
<name>渔船</name>
<pose>Unspecified</pose>
<difficult>1</difficult>
<robndbox>
<cx>60.0</cx>
<cy>50.0</cy>
<w>40.0</w>
<h>20.0</h>
<angle>{RADIANS}</angle>
</robndbox>
</object>
<object>
<type>bndbox</type>
<name>storage tank</name>
<difficult>0</difficult>
<bndbox><xmin>120</xmin><ymin>10</ymin><xmax>150</xmax><ymax>25</ymax></bndbox>
</object>
"""
    return {
        "a b.xml": head.format("a b") + objects + "</annotation>",
        "empty.xml": head.format("empty") + "</annotation>",
    }


def cvat() -> dict[str, str]:
    text = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
<version>1.1</version>
<meta><job><labels>
<label><name>storage tank</name><color>#33ddff</color><attributes></attributes></label>
<label><name>渔船</name><color>#fa3253</color><attributes></attributes></label>
</labels></job></meta>
<image id="7" name="harbour/a b.png" width="200" height="100">
<box label="渔船" source="manual" occluded="0" xtl="40.00" ytl="40.00" xbr="80.00" ybr="60.00"
 rotation="30.00" z_order="0">
<attribute name="difficult">true</attribute>
</box>
<polygon label="storage tank" source="manual" occluded="0"
 points="120.00,10.00;150.00,10.00;150.00,25.00;120.00,25.00" z_order="0"></polygon>
</image>
<image id="8" name="empty.png" width="200" height="100"></image>
</annotations>
"""
    return {"annotations.xml": text}


def _coco(annotations: list[dict]) -> dict[str, str]:
    content = {
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "categories": [
            {"id": 3, "name": "storage tank", "supercategory": ""},
            {"id": "5", "name": "渔船", "supercategory": ""},
        ],
        "images": [
            {"id": 11, "width": WIDTH, "height": HEIGHT, "file_name": "./harbour/a b.png"},
            {"id": 12, "width": WIDTH, "height": HEIGHT, "file_name": "empty.png"},
        ],
        "annotations": annotations,
    }
    return {"instances_default.json": json.dumps(content, ensure_ascii=False, indent=0)}


def cvat_coco() -> dict[str, str]:
    common = {"segmentation": [], "iscrowd": 0, "area": 800.0}
    rotated = {"occluded": False, "rotation": 30.0, "difficult": "true"}
    return _coco(
        [
            {"id": 90, "image_id": "11", "category_id": 5, "bbox": [40.0, 40.0, 40.0, 20.0],
             "attributes": rotated, **common},
            {"id": 91, "image_id": 11, "category_id": 3, "bbox": [120.0, 10.0, 30.0, 15.0],
             "attributes": {"occluded": False, "rotation": 0.0}, **common},
        ]
    )  # fmt: skip


def coco() -> dict[str, str]:
    runs = [120 * 100 + 10, *[15, 85] * 29, 15, 200 * 100 - 149 * 100 - 25]
    return _coco(
        [
            {"id": 90, "image_id": 11, "category_id": 5, "bbox": [37, 31, 45, 37], "area": 800.0,
             "segmentation": [[0, 0, 2, 0, 0, 2], FLAT], "iscrowd": 0, "difficult": 1},
            {"id": 91, "image_id": 11, "category_id": "3", "bbox": [120, 10, 30, 15],
             "segmentation": {"counts": runs, "size": [HEIGHT, WIDTH]}, "iscrowd": 1},
        ]
    )  # fmt: skip


def coco_rotated() -> dict[str, str]:
    return _coco(
        [
            {"id": 90, "image_id": 11, "category_id": 5, "bbox": [60, 50, 40, 20, -30],
             "difficult": 1},
            {"id": 91, "image_id": 11, "category_id": 3, "bbox": [135, 17.5, 30, 15, 0]},
        ]
    )  # fmt: skip


def label_studio() -> dict[str, str]:
    common = {
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_rotation": 0,
        "from_name": "label",
        "to_name": "image",
    }
    turned = {
        "x": 23.839745962155614,
        "y": 31.33974596215561,
        "width": 20,
        "height": 20,
        "rotation": 30,
        "rectanglelabels": ["渔船"],
    }
    upright = {
        "points": [[60, 10], [75, 10], [75, 25], [60, 25]],
        "closed": True,
        "polygonlabels": ["storage tank"],
    }
    result = [
        {**common, "value": turned, "id": "Dx_aB1", "type": "rectanglelabels", "origin": "manual"},
        {**common, "value": upright, "id": "Dx_aB2", "type": "polygonlabels"},
        {"value": {"choices": ["clear"]}, "from_name": "sky", "type": "choices"},
    ]
    size = {"width": WIDTH, "height": HEIGHT}
    address = "/data/local-files/?d=images/harbour/a%20b.png"
    tasks = [
        {"id": 1, "data": {"image": address, **size}, "annotations":
         [{"id": 4, "result": [], "was_cancelled": True}, {"id": 5, "result": result}]},
        {"id": 2, "data": {"image": "/data/upload/3/0a1b2c3d-empty.png", **size},
         "annotations": [{"result": [], "was_cancelled": False}]},
    ]  # fmt: skip
    return {"tasks.json": json.dumps(tasks, ensure_ascii=False, indent=0)}


def labelme() -> dict[str, str]:
    def text(name: str, shapes: list[dict]) -> str:
        content = {
            "version": "2.4.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": name,
            "imageData": None,
            "imageHeight": HEIGHT,
            "imageWidth": WIDTH,
        }
        return json.dumps(content, ensure_ascii=False, indent=0)

    turned = {"label": "渔船", "points": TURNED, "group_id": None, "difficult": True, "flags": {},
              "shape_type": "rotation", "direction": 99.0}  # fmt: skip
    upright = {"label": "storage tank", "points": [[120, 10], [150, 25]], "shape_type": "rectangle"}
    return {"a b.json": text("a b.png", [turned, upright]), "empty.json": text("empty.png", [])}


def hrsc() -> dict[str, str]:
    def text(name: str, objects: str) -> str:
        return (
            "<HRSC_Image>\n<Img_CusType>sealand</Img_CusType>\n<Img_SizeWidth>200</Img_SizeWidth>\n"
            "<Img_SizeHeight>100</Img_SizeHeight>\n<Img_SizeDepth>3</Img_SizeDepth>\n"
            f"<Img_FileName>{name}</Img_FileName>\n<Img_FileFmt>png</Img_FileFmt>\n"
            f"<HRSC_Objects>{objects}</HRSC_Objects>\n</HRSC_Image>"
        )

    def ship(number: int, difficult: int, box: list[float], head: list[float]) -> str:
        values = zip(("mbox_cx", "mbox_cy", "mbox_w", "mbox_h", "mbox_ang"), box)
        heads = zip(("header_x", "header_y"), head)
        rows = "\n".join(f"<{tag}>{value}</{tag}>" for tag, value in [*values, *heads])
        return (
            f"\n<HRSC_Object>\n<Class_ID>1000000{number:02d}</Class_ID>\n"
            f"<difficult>{difficult}</difficult>\n{rows}\n</HRSC_Object>\n"
        )

    table = "".join(
        f"<HRSC_Class><Class_ID>1000000{number:02d}</Class_ID><Class_EngName>{name}"
        "</Class_EngName></HRSC_Class>"
        for number, name in ((1, "storage tank"), (13, "渔船"))
    )
    ships = ship(13, 1, [60, 50, 40, 20, RADIANS], [77.3, 60]) + ship(
        1, 0, [135, 17.5, 30, 15, 0], [120, 17]
    )
    return {
        "Annotations/a b.xml": text("a b", ships),
        "Annotations/empty.xml": text("empty", ""),
        "sysdata.xml": f"<HRSC_Sys><HRSC_Classes>{table}</HRSC_Classes></HRSC_Sys>",
    }


def fair1m() -> dict[str, str]:
    def text(name: str, objects: str) -> str:
        return (
            f"<annotation>\n<source>\n<filename>{name}</filename>\n<origin>GF2/GF3</origin>\n"
            "</source>\n<size>\n<width>200</width>\n<height>100</height>\n<depth>3</depth>\n"
            f"</size>\n<objects>{objects}</objects>\n</annotation>"
        )

    def one(name: str, points: list[list[float]]) -> str:
        rows = "\n".join(f"<point>{x},{y}</point>" for x, y in [*points, points[0]])
        return (
            "\n<object>\n<coordinate>pixel</coordinate>\n<type>rectangle</type>\n"
            "<description>None</description>\n<possibleresult>\n"
            f"<name>{name}</name>\n</possibleresult>\n<points>\n{rows}\n</points>\n</object>\n"
        )

    objects = one("渔船", TURNED) + one("storage tank", UPRIGHT)
    return {"a b.xml": text("a b.tif", objects), "empty.xml": text("empty.tif", "")}


def soda_a() -> dict[str, str]:
    def text(name: str, annotations: list[dict]) -> str:
        content = {
            "images": {"file_name": name, "height": HEIGHT, "width": WIDTH, "id": 1},
            "annotations": annotations,
            "categories": [{"id": 0, "name": "storage tank"}, {"id": 1, "name": "渔船"}],
        }
        return json.dumps(content, ensure_ascii=False, indent=0)

    upright = [value for point in UPRIGHT for value in point]
    rows = [
        {"id": 0, "image_id": 1, "category_id": 1, "area": 800.0, "poly": FLAT},
        {"id": 1, "image_id": 1, "category_id": 0, "area": 450.0, "poly": upright},
    ]
    return {"a b.json": text("a b.png", rows), "empty.json": text("empty.png", [])}


def geojson() -> dict[str, str]:
    """As a map program writes it: one file, the rings closed and against the clock."""

    def feature(name: str, corners: list[list[float]], **more: object) -> dict:
        places = [[WEST + x * DEGREES, NORTH - y * DEGREES] for x, y in corners]
        ring = [places[0], *reversed(places)]
        geometry = {"type": "MultiPolygon", "coordinates": [[ring]]}
        properties = {"class": name, "image": "a b", "source": None, **more}
        return {"type": "Feature", "properties": properties, "geometry": geometry}

    content = {
        "type": "FeatureCollection",
        "name": "labels",
        "metadata": {"images": ["empty.png"]},
        "features": [
            feature("渔船", TURNED, difficult="1"),
            feature("storage tank", UPRIGHT, difficult=None),
        ],
    }
    return {"labels.geojson": json.dumps(content, ensure_ascii=False, indent=0)}


PUBLISHED = {
    "dota": dota,
    "yolo-obb": yolo_obb,
    "rolabelimg": rolabelimg,
    "cvat": cvat,
    "cvat-coco": cvat_coco,
    "coco": coco,
    "coco-rotated": coco_rotated,
    "label-studio": label_studio,
    "labelme": labelme,
    "hrsc": hrsc,
    "fair1m": fair1m,
    "soda-a": soda_a,
    "geojson": geojson,
}
"""Format -> function that returns the files of its published layout."""
