"""How each step's result is shown. A `show` reads only what the step left, so old results get new cards too."""
