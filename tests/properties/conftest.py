"""Properties hold for whatever `hypothesis` thinks of: the same examples every time, and nothing kept between runs."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "recipe",
    derandomize=True,
    database=None,
    deadline=None,  # a machine may be busy
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("recipe")
