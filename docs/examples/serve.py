"""Labels files over HTTP, by what `mmcl_jax.export` has written into `$EXPORT`."""

import os
from typing import Annotated, Any

from fastapi import Body, FastAPI, Request
from fastapi.responses import JSONResponse

from mmcl_jax.serving import exported

app, model = FastAPI(), exported.load(os.environ["EXPORT"])
File = Annotated[bytes, Body(media_type="application/octet-stream")]


@app.post("/label")
def label(file: File, top: int = 3, reject: float | None = None) -> dict[str, Any]:
    """Returns the likeliest classes of a file of any modality."""
    return model.predict([file], top=top, reject=reject)[0].row()


@app.exception_handler(ValueError)
def refuse(request: Request, error: ValueError) -> JSONResponse:
    """Says what is wrong with a file that cannot be read."""
    return JSONResponse({"error": str(error)}, status_code=422)
