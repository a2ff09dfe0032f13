"""Made-up pictures beside made-up records, as trials leave them."""

from pathlib import Path

import numpy as np

SCENES = "scenes-00000000"
SIDE = 12


def add_panels(records: list[dict], directory: Path) -> None:
    """Write predictions for every good record, and image and labels once; each record's field `panels` names its file."""
    directory.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    ids = np.array(["first", "second"])
    labels = {
        "image": generator.integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8),
        "semseg": generator.integers(0, 21, (2, SIDE, SIDE), dtype=np.uint8),
        "human_parts": generator.integers(0, 7, (2, SIDE, SIDE), dtype=np.uint8),
        "saliency": generator.integers(0, 2, (2, SIDE, SIDE), dtype=np.uint8),
        "normals": np.full((2, SIDE, SIDE, 3), (128, 128, 255), dtype=np.uint8),
    }
    labels["semseg"][:, 0] = labels["saliency"][:, 0] = 255
    labels["normals"][1] = 0  # nothing labelled on the second image
    for what, array in labels.items():
        np.savez_compressed(directory / f"{SCENES}-{what}.npz", id=ids, map=array)
    kinds = {"semseg": "classes", "human_parts": "classes", "saliency": "binary", "normals": "normals"}
    for record in records:
        if record["status"] != "ok":
            continue
        own = {"id": ids, "scenes": np.array(SCENES)}
        for task in record["tasks"]:
            prediction = labels[task].copy()
            if kinds[task] == "binary":
                prediction = np.where(prediction == 1, 255, 0).astype(np.uint8)
            prediction[:, : SIDE // 2] = 0  # the upper half is wrong where the label is not 0
            own |= {f"{task}/prediction": prediction, f"{task}/kind": np.array(kinds[task])}
        record["panels"] = f"{record['run_id']}.panels.npz"
        np.savez_compressed(directory / record["panels"], **own)
