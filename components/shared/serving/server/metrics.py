"""Prometheus metrics of the server; /metrics has KServe's own and the process's beside them."""

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

REQUESTS = Counter(
    "streetvision_requests", "Requests by endpoint and status.", ["endpoint", "status"]
)
LATENCY = Histogram(
    "streetvision_request_seconds",
    "Seconds from a request's headers to its answer, of answered requests.",
    ["endpoint"],
    buckets=_SECONDS,
)
DECISIONS = Counter("streetvision_decisions", "Answers by decision, after stage 2.", ["decision"])
DEFERS = Counter("streetvision_defers", "Images that stage 1 deferred.")
VIEWS = Counter("streetvision_views", "Views that were looked at.")
REJECTED = Counter("streetvision_rejected", "Requests that were refused, by reason.", ["reason"])
QUEUED = Gauge("streetvision_queued_images", "Images that were accepted and are not answered.")
BATCHES = Histogram(
    "streetvision_batch_images", "Images per batch.", buckets=(1, 2, 4, 8, 16, 32, 64)
)
BUNDLE = Gauge("streetvision_bundle", "1 for the bundle that answers.", ["digest", "form"])
SWAPS = Counter("streetvision_swaps", "Changes to a new champion.", ["result"])
