"""What the routes for managing models take and give."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from whisper_api.api.schemas import ErrorDetail


class ModelRequest(BaseModel):
    """Names a model."""

    model: str


class PullRequest(ModelRequest):
    """What to fetch from the hub."""

    revision: str | None = Field(default=None, description="Branch, tag or commit")
    stream: bool = Field(default=False, description="Progress as server-sent events")


class Pull(BaseModel):
    """A download of a model."""

    id: str
    object: Literal["model.pull"] = "model.pull"
    model: str
    revision: str | None
    status: Literal["pending", "running", "completed", "failed", "cancelled"]
    created_at: int = Field(description="Unix seconds")
    completed_bytes: int
    total_bytes: int | None = Field(description="null as long as it is not known")
    progress: float = Field(description="0 to 100")
    error: ErrorDetail | None


class PullList(BaseModel):
    """Downloads of models."""

    object: Literal["list"] = "list"
    data: list[Pull]


class LoadedModel(BaseModel):
    """A model in memory."""

    id: str
    object: Literal["model"] = "model"
    status: Literal["loading", "loaded"]
    users: int = Field(description="Requests that hold it now")
    size_bytes: int = Field(description="Of its files")
    idle_seconds: float


class LoadedModelList(BaseModel):
    """Models in memory."""

    object: Literal["list"] = "list"
    data: list[LoadedModel]


class CatalogModel(BaseModel):
    """A model to choose or to fetch."""

    id: str
    object: Literal["model"] = "model"
    installed: bool = Field(default=False, description="On this machine")
    default: bool = False
    size_bytes: int = Field(default=0, description="On disk; 0 where it is not known")
    source: str = Field(default="", description="Repository it comes from")
    loaded: bool = Field(default=False, description="In memory")
    removable: bool = False


class Catalog(BaseModel):
    """All models that this server knows by name."""

    object: Literal["list"] = "list"
    data: list[CatalogModel]
    can_manage: bool = Field(description="Whether the caller may fetch and remove models")
    offline: bool = Field(description="Whether nothing is fetched")


class UnloadedModel(BaseModel):
    """A model that has left the memory."""

    id: str
    object: Literal["model"] = "model"
    status: Literal["unloaded"] = "unloaded"


class DeletedModel(BaseModel):
    """A model that has left this machine (OpenAI's shape)."""

    id: str
    object: Literal["model"] = "model"
    deleted: bool = True


def json_object(model: type[BaseModel]) -> dict[str, Any]:
    """A route's description of its body, a JSON object."""
    content = {"application/json": {"schema": model.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}
