"""The column of JAX in the table of capabilities is what its backend declares."""

from docs import generate_capabilities


def test_the_column_is_what_the_backend_declares() -> None:
    told = "run, where JAX is: python docs/generate_capabilities.py jax"
    assert generate_capabilities.stored()["jax"] == generate_capabilities.column("jax"), told


def test_the_page_is_what_the_columns_say() -> None:
    told = "run: python docs/generate_capabilities.py"
    assert generate_capabilities.PAGE.read_text(encoding="utf-8") == generate_capabilities.page(), told
