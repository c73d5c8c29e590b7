"""Personalised image generation that can be trusted and repeated."""
