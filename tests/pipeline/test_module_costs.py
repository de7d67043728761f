"""What `optkit sensitivity` prints: a table of noise says that it is one."""

from optkit.pipeline.module_costs import Cost, render


def cost(part: str, divergence: float) -> Cost:
    return Cost("quantize", "baseline_fp32", part, divergence, "KL (nats)", 0.5, 1.2e-7, None)


def test_a_table_of_nothing_but_rounding_says_so() -> None:
    noise = render([cost("all", 2e-10), cost("layer 1", 1e-10), cost("query", 1e-10)], "table")
    said = "These say nothing: no part moves the answers by more than FP32 may round them, 1.2e-07"
    assert said in " ".join(noise.split())
    assert "say nothing" not in render([cost("all", 2e-3), cost("layer 1", 1e-10), cost("query", 1e-10)], "table")
