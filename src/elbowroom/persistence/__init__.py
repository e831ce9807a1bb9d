"""Saved models: folders of JSON and safetensors, checked before they are loaded."""
