"""Photographs: files in, clean captioned photographs out."""
