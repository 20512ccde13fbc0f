"""The paper's recipe at ImageNet 64x64, which the other files change. cfg_jax/fields.py explains every field."""

from cfg_jax import fields


def get_config():
    return fields.paper()
