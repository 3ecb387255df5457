"""A page as FastSAM's public demo works: models are loaded once, and every question runs the whole line again.

The demo of CASIA-IVA-Lab/FastSAM (app_gradio.py) asks ultralytics for all masks of the picture at 1024 px, at full
resolution, confidence 0.25, IoU 0.7; a point or a text chooses among them, and the picture is drawn anew. So does this,
with ultralytics' own predictor and text prompt and its own drawing, on the weights the app is timed with: the mini
proposer, which is a FastSAM of YOLOv8n, and the mini CLIP.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import cv2
import safetensors.torch
import streamlit as st
import torch
from open_clip.transform import image_transform_v2
from PIL import Image

from segclip.encoders import checkpoints, sources
from segclip.proposers.yolo import quiet
from tests.networks import save_checkpoint
from tests.upstream import install_clip

MINI = Path(__file__).parents[1] / "weights" / "mini"
LOOK: dict[str, Any] = {
    "imgsz": 1024,
    "conf": 0.25,
    "iou": 0.7,
    "retina_masks": True,
    "device": "cpu",
    "save": False,
    "verbose": False,
}


@st.cache_resource
def load() -> Any:
    """Hand the mini weights to ultralytics' FastSAM, and let it use all threads, which it doesn't by itself."""
    source = sources.find(f"file:{MINI / 'clip'}")
    side = int(source.model_cfg["vision_cfg"]["image_size"])
    see = image_transform_v2(checkpoints.preprocess_config(source, side), is_train=False)
    install_clip(checkpoints.build(source).eval(), see, checkpoints.tokenizer(source))
    with quiet(), tempfile.TemporaryDirectory() as folder:
        from ultralytics.models.fastsam import FastSAMPredictor
        from ultralytics.nn.tasks import SegmentationModel

        network = SegmentationModel("yolov8n-seg.yaml", nc=1, verbose=False)
        network.load_state_dict(safetensors.torch.load_file(MINI / "proposer" / "model.safetensors"))
        network.names, network.task = {0: "object"}, "segment"
        path = save_checkpoint(network, Path(folder) / "FastSAM-n.pt")
        predictor = FastSAMPredictor(overrides={**LOOK, "model": str(path), "mode": "predict", "task": "segment"})
        predictor.setup_model(None, verbose=False)
    return predictor


asked = st.text_input("Ask")
if asked:
    predictor = load()
    torch.set_num_threads(os.cpu_count() or 1)
    text, _, confidence = asked.partition(" @ ")
    predictor.args.conf = float(confidence or LOOK["conf"])
    numbers = [float(part) for part in text.split(",")] if text[0].isdigit() else []
    predictor.set_prompts({"points": [numbers], "labels": [1]} if numbers else {"texts": text})
    picture = Image.open(os.environ["PICTURE"]).convert("RGB")
    (result,) = predictor(picture)
    st.image(cv2.cvtColor(result.plot(labels=False, boxes=False), cv2.COLOR_BGR2RGB))
    st.html(f"<span id='shown'>{asked}</span>")
