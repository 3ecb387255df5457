"""A page as FastSAM demos are written: the model is loaded once, and every question runs the whole line again."""

from __future__ import annotations

import os

import streamlit as st

import segclip

load = st.cache_resource(segclip.load)
asked = st.text_input("Ask")
if asked:
    numbers = [float(part) for part in asked.split(",")] if asked[0].isdigit() else []
    if len(numbers) == 2:
        result = load("mini-sam").pick(os.environ["PICTURE"], segclip.Points([numbers]))[:1]
    else:
        text, _, threshold = asked.partition(" @ ")
        selection = segclip.Selection(float(threshold) if threshold else None)
        result = load("mini")(os.environ["PICTURE"], text, selection=selection)
    st.image(segclip.overlay(result))
    st.html(f"<span id='shown'>{asked}</span>")
