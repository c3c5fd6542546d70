"""The OpenAPI document: request and response models made from each model's contract.

pydantic and FastAPI write it, so that it is what people and tools expect; requests never pass through them. What they
describe is what `core.requests` accepts, no more and no less: a test sends what the document allows and forbids.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from fastapi import Body, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, create_model

import steward
from steward.config import Column, ModelFile
from steward.core.requests import LARGEST_WHOLE, Reader
from steward.serving.lineup import Lineup

Schema = dict[str, Any]
REFUSALS = {
    400: "Not JSON, or nested too deeply",
    401: "No valid API key",
    403: "The key has no right to this",
    404: "No such model",
    413: "Too large",
    415: "Not application/json, or compressed",
    421: "Without API keys only this machine is served",
    422: "The record breaks the contract",
    429: "Too many requests; Retry-After says when",
    503: "Nothing can answer now, or the answer could not be put on record",
}
VISIBLE = r"[^\s\u0000\u001c-\u001f\u0085]"
"""A character that is neither a blank, as Python sees it, nor NUL."""
BLANK = r"^[\s\u001c-\u001f\u0085]*$"


class Problem(BaseModel):
    """One field that is wrong."""

    record: int | None = Field(description="Position of the record in a batch.")
    field: str | None
    what: str
    got: str | None
    allowed: str | None


class Refusal(BaseModel):
    """Why a request was refused."""

    error: str
    what: str
    got: str | None
    allowed: str | None
    do: str | None
    problems: list[Problem]
    request_id: str


class Interval(BaseModel):
    low: float
    high: float


class OutcomeReport(BaseModel):
    """What became of the outcomes."""

    accepted: int
    repeated: int
    corrected: int
    unknown: list[str] = Field(description="Targets without a prediction so far.")


def document(lineups: Iterable[Lineup], most: int) -> bytes:
    """The OpenAPI document as JSON.

    Parameters
    ----------
    most : records that a batch may hold.
    """
    app = FastAPI()
    for lineup in lineups:
        _describe(app, lineup, most)
    _describe_service(app)
    routes = [route for route in app.routes if isinstance(route, APIRoute) and route.include_in_schema]
    made = get_openapi(
        title="Steward",
        version=steward.__version__,
        description="Predictions of the champions, on record before they are answered.",
        routes=routes,
    )
    made.setdefault("components", {})["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    made["security"] = [{}, {"key": []}]
    return json.dumps(made).encode()


def _describe(app: FastAPI, lineup: Lineup, most: int) -> None:
    """The paths of one model."""
    model, name = lineup.model, lineup.model.name
    record: Any = _record_model(lineup)
    answer: Any = _answer_model(lineup.contract)
    batch = create_model(f"{name}_batch_answer", predictions=(list[answer], ...))
    records = Annotated[list[record], Field(min_length=1, max_length=most)]
    outcome: Any = _outcome_model(model)
    outcomes = Annotated[list[outcome], Field(min_length=1, max_length=most)]
    shown = model.description or f"{model.label.column} of {name}"
    _post(app, f"/v1/models/{name}/predict", name, record, answer, f"Predict: {shown}")
    _post(app, f"/v1/models/{name}/predict/batch", name, records, batch, "Predict many records with one version")
    _post(app, f"/v1/models/{name}/outcomes", name, outcomes, OutcomeReport, "Say what came of predictions")
    _get(app, f"/v1/models/{name}", name, "The model and its contract", 401, 404, 421, 429)


def _describe_service(app: FastAPI) -> None:
    _get(app, "/v1/models", "service", "Every model", 401, 421, 429)
    _get(app, "/healthz", "service", "Does the process answer?")
    _get(app, "/readyz", "service", "Can every model be answered, and what is missing?", 503)


def _post(app: FastAPI, path: str, tag: str, takes: Any, answers: Any, summary: str) -> None:
    def stub(body: Any) -> None: ...

    stub.__annotations__["body"] = Annotated[takes, Body()]
    refusals: dict[int | str, dict[str, Any]] = {
        status: {"model": Refusal, "description": text} for status, text in REFUSALS.items()
    }
    operation = re.sub(r"\W+", "_", path).strip("_")
    app.post(path, tags=[tag], summary=summary, response_model=answers, responses=refusals, operation_id=operation)(
        stub
    )


def _get(app: FastAPI, path: str, tag: str, summary: str, *refusals: int) -> None:
    def stub() -> None: ...

    documented: dict[int | str, dict[str, Any]] = {
        status: {"description": REFUSALS[status]}
        if path == "/readyz"
        else {"model": Refusal, "description": REFUSALS[status]}
        for status in refusals
    }
    operation = re.sub(r"\W+", "_", path).strip("_") or "root"
    app.get(
        path, tags=[tag], summary=summary, response_model=dict[str, Any], responses=documented, operation_id=operation
    )(stub)


def _record_model(lineup: Lineup) -> type[BaseModel]:
    """What may be sent: the columns of the contract, and the source's own fields, which no model looks at."""
    contract, ignores = lineup.contract, lineup.model.serve.unknown_fields == "ignore"
    flags = lineup.model.serve.out_of_range == "flag"
    fields: dict[str, Any] = {
        name: _field(name, column, contract.source.missing, flags=flags) for name, column in contract.columns.items()
    }
    for name in sorted(Reader(contract).others - contract.columns.keys()):
        kept = name in contract.source.keys
        fields[name] = (Annotated[Any, WithJsonSchema(_source_field(kept=kept))], Field(None, alias=name))
    example = lineup.contenders[0].engine.predictor.made.example if lineup.contenders else {}
    config = ConfigDict(
        extra="allow" if ignores else "forbid",
        title=f"{contract.name} record",
        json_schema_extra={"examples": [example]} if example else {},
    )
    safe = {f"field_{position}": value for position, value in enumerate(fields.values())}
    return create_model(f"{contract.name}_record", __config__=config, **safe)


def _field(name: str, column: Column, missing: tuple[str, ...], *, flags: bool) -> tuple[Any, Any]:
    default = None if column.nullable else ...
    schema = schema_of(column, missing, flags=flags)
    return Annotated[Any, WithJsonSchema(schema)], Field(default, alias=name, description=column.description or None)


def _source_field(*, kept: bool) -> Schema:
    if kept:
        text = {"type": "string", "pattern": "^[^\\u0000]*$"}
        return {
            "anyOf": [text, {"type": "number"}, {"type": "boolean"}, {"type": "null"}],
            "description": "Put on record.",
        }
    return {"description": "Not looked at."}


def schema_of(column: Column, missing: tuple[str, ...], *, flags: bool = False) -> Schema:
    """JSON Schema of what may be sent for a column.

    >>> schema_of(Column(type="integer", min=0, max=23), ("",))
    {'type': 'integer', 'minimum': 0, 'maximum': 23}
    >>> schema_of(Column(type="category", values=("web", "5"), nullable=True), ("", "?"))
    {'enum': ['web', '5', 5, None, '', '?']}
    """
    if column.type == "boolean":
        return _nullable({"enum": [True, False, 0, 1]}, column, missing)
    if column.type == "category":
        return _category(column, missing)
    low, high = (None, None) if flags else (column.min, column.max)
    limits = {"minimum": _shown(low), "maximum": _shown(high)}
    if column.type == "integer":
        limits = {name: value if value is not None else edge for (name, value), edge in zip(
            limits.items(), (-LARGEST_WHOLE, LARGEST_WHOLE), strict=True)}  # fmt: skip
    kept = {name: value for name, value in limits.items() if value is not None}
    return _nullable({"type": column.type, **kept}, column, missing)


def _shown(limit: float | None) -> float | int | None:
    return int(limit) if limit is not None and float(limit).is_integer() else limit


def _category(column: Column, missing: tuple[str, ...]) -> Schema:
    if column.open or not column.values:
        text: Schema = {"type": "string", "pattern": VISIBLE, "not": {"enum": list(missing)}}
        return _nullable({"anyOf": [text, {"type": "number"}, {"type": "boolean"}]}, column, missing)
    spellings = dict.fromkeys([*column.values, *column.aliases])
    forms = [form for text in spellings if text not in missing for form in _forms(text)]
    return _nullable({"enum": forms}, column, missing)


def _forms(text: str) -> list[Any]:
    """A category, and what else JSON may write for it: 5 for "5", true for "true"."""
    forms: list[Any] = [text]
    if text in ("true", "false"):
        forms.append(text == "true")
    elif re.fullmatch(r"-?(0|[1-9]\d{0,14})", text) and text != "-0":
        forms.append(int(text))
    return forms


def _nullable(schema: Schema, column: Column, missing: tuple[str, ...]) -> Schema:
    if not column.nullable:
        return schema
    none = [None, *missing]
    if "enum" in schema:
        return {"enum": [*schema["enum"], *none]}
    blank = [{"type": "string", "pattern": BLANK}] if "" in missing else []
    return {"anyOf": [schema, {"enum": none}, *blank]}


def _answer_model(model: ModelFile) -> type[BaseModel]:
    """What is answered; the names of the probabilities are those of the classes."""
    classes = model.classes
    prediction: Any = Literal[classes] if classes else float
    shares: Any = dict[str, float] | None
    if classes:
        properties = {name: {"type": "number", "minimum": 0, "maximum": 1.000001} for name in classes}
        described = {"type": "object", "properties": properties, "required": list(classes)}
        shares = Annotated[shares, WithJsonSchema({"anyOf": [described, {"type": "null"}]})]
    fields: Mapping[str, Any] = {
        "prediction": (prediction, ...),
        "confidence": (float | None, Field(description="Probability of the prediction; null for a regression.")),
        "probabilities": (shares, ...),
        "interval": (Interval | None, Field(description="Regression: where the truth is expected.")),
        "action": (str, Field(description="What the model file recommends.")),
        "message": (str, ...),
        "model_version": (int | None, Field(description="Null where the constant answered.")),
        "prediction_id": (str, Field(pattern="^[0-9a-f]{32}$")),
        "fallback": (
            Literal["previous", "constant"] | None,
            Field(description="What answered instead of the champion."),
        ),
        "unseen": (list[str], Field(description="Columns whose category training did not know.")),
        "flags": (list[str], Field(description="What was accepted although it is unusual.")),
        "control": (bool, Field(description="The action is `proceed` whatever the prediction, to measure the risk.")),
        "logged": (bool, Field(description="False: kept in a local file until the database is back.")),
        "timestamp": (str, Field(json_schema_extra={"format": "date-time"})),
    }
    shape = ConfigDict(protected_namespaces=(), title=f"{model.name} answer")
    return create_model(f"{model.name}_answer", __config__=shape, **fields)


def _outcome_model(model: ModelFile) -> type[BaseModel]:
    """An outcome: of a prediction, or of a key."""
    label = _label_schema(model)
    text: Schema = {"type": "string", "pattern": f"^[^\\u0000]*{VISIBLE}[^\\u0000]*$"}
    key: Schema = {"anyOf": [text, {"type": "number"}, {"type": "boolean"}]}
    if len(model.source.keys) > 1:
        parts = {"type": "array", "items": key, "minItems": len(model.source.keys), "maxItems": len(model.source.keys)}
        key = {"anyOf": [*key["anyOf"], parts]}
    properties = {
        "prediction_id": text | {"description": "Of the answer."},
        "key": key | {"description": f"The source's {', '.join(model.source.keys)}."},
        "label": label,
        "observed_at": {
            "anyOf": [{"type": "string", "format": "date-time"}, {"type": "number"}, {"type": "null"}],
            "description": "When; UTC.",
        },
    }
    forms = [{"required": ["prediction_id", "label"], "not": {"required": ["key"]}},
             {"required": ["key", "label"], "not": {"required": ["prediction_id"]}}]  # fmt: skip
    example: Schema = {"prediction_id": "019b76daa9f47000a8f3c1d2e4b5a697", "label": label.get("enum", [1.0])[0]}
    schema = {
        "type": "object", "properties": properties, "additionalProperties": False, "oneOf": forms, "examples": [example],
    }  # fmt: skip
    return create_model(
        f"{model.name}_outcome", __config__=ConfigDict(json_schema_extra=lambda made: _replace(made, schema))
    )


def _replace(made: Schema, schema: Schema) -> None:
    made.clear()
    made.update(schema)


def _label_schema(model: ModelFile) -> Schema:
    if model.classes:
        return {"enum": [form for text in (*model.classes, *model.label.aliases) for form in _forms(text)]}
    limits = {"minimum": _shown(model.label.min), "maximum": _shown(model.label.max)}
    return {"type": "number", **{name: value for name, value in limits.items() if value is not None}}
