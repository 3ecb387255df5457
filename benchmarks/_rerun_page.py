"""Work as FastSAM's public demo does: load models once, rerun everything for every question.

The demo of CASIA-IVA-Lab/FastSAM (app_gradio.py) asks ultralytics for all masks of the image at
1024 px, at full resolution, confidence 0.25, IoU 0.7; a point or a text chooses among them, and the
image is drawn anew. So does this, with ultralytics' own predictor and text prompt and its own
drawing. PROPOSER is a checkpoint of ultralytics, ENCODER a folder that holds a CLIP, IMAGE what
is queried, MOST how many masks are looked at.
"""

from __future__ import annotations

import os
from typing import Any

import cv2
import streamlit as st
import torch
from open_clip.transform import image_transform_v2
from PIL import Image

from segclip.encoders import checkpoints, sources, tokenizers
from segclip.proposers.yolo import quiet
from tests.upstream import install_clip

LOOK: dict[str, Any] = {
    "imgsz": 1024,
    "conf": 0.25,
    "iou": 0.7,
    "max_det": int(os.environ["MOST"]),
    "retina_masks": True,
    "device": "cpu",
    "save": False,
    "verbose": False,
}


@st.cache_resource
def load() -> Any:
    """Load the weights into ultralytics' FastSAM, and let it use all threads."""
    source = sources.find(f"file:{os.environ['ENCODER']}")
    side = int(source.model_cfg["vision_cfg"]["image_size"])
    see = image_transform_v2(checkpoints.preprocess_config(source, side), is_train=False)
    install_clip(checkpoints.restore(source)[0], see, tokenizers.make_tokenizer(source))
    with quiet():
        from ultralytics.models.fastsam import FastSAMPredictor

        own = {"model": os.environ["PROPOSER"], "mode": "predict", "task": "segment"}
        predictor = FastSAMPredictor(overrides={**LOOK, **own})
        predictor.setup_model(None, verbose=False)
    return predictor


query = st.text_input("Ask")
if query:
    predictor = load()
    torch.set_num_threads(os.cpu_count() or 1)
    text, _, confidence = query.partition(" @ ")
    predictor.args.conf = float(confidence or LOOK["conf"])
    numbers = [float(part) for part in text.split(",")] if text[0].isdigit() else []
    predictor.set_prompts({"points": [numbers], "labels": [1]} if numbers else {"texts": text})
    image = Image.open(os.environ["IMAGE"]).convert("RGB")
    (result,) = predictor(image)
    st.image(cv2.cvtColor(result.plot(labels=False, boxes=False), cv2.COLOR_BGR2RGB))
    st.html(f"<span id='shown'>{query}</span>")
