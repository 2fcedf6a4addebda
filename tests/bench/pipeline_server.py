"""The peer of the server: transformers' pipeline behind FastAPI, as its documents show it.

`python -m tests.bench.pipeline_server MODEL_FOLDER PORT`
"""

import io
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from PIL import Image
from transformers import pipeline


def application(folder: str) -> FastAPI:
    """Return the application: POST /predict with the bytes of an image, GET /v2/health/ready."""
    classify = pipeline("image-classification", model=folder)
    app = FastAPI()

    @app.post("/predict")
    async def predict(request: Request) -> Any:
        data = await request.body()
        found = await run_in_threadpool(lambda: classify(Image.open(io.BytesIO(data))))
        return {"decision": found[0]["label"], "probability": found[0]["score"]}

    @app.get("/v2/health/ready")
    def ready() -> Response:
        return Response()

    return app


if __name__ == "__main__":
    uvicorn.run(application(sys.argv[1]), port=int(sys.argv[2]), log_level="error")
