"""The language as a JSON Schema (draft-07, which editors' YAML servers know best), made from its grammar.

A schema sees one document without its model: it catches what is misspelt, missing, of a wrong type or out of bounds.
What YAML hides (duplicate keys, tabs) and what only a model tells (stacks, layers, components) is found by
`surgery check`.
"""

from collections.abc import Mapping
from typing import Any

from surgery.spec.grammar import (
    BESIDE,
    KEYS,
    OPERATIONS,
    ORDER_GROUP,
    REQUIRED_KEYS,
    VERSION,
    WHEN,
    Field,
    Form,
)
from surgery.spec.selector import MAX_INDEX, MODELS
from surgery.spec.vary import RANGE

SCHEMA_DIALECT = "http://json-schema.org/draft-07/schema#"
TITLE = "Specs of layer surgery"

TEMPLATE = r"\{(?:[\w\s+/%()-]|\*(?!\*))*\}"  # arithmetic over the variables of a sweep
INDEX = r"(?:0{0,2}[0-9]{1,5}|0?100000|-(?:0?[0-9]{1,5}|100000))"  # up to MAX_INDEX, in at most seven characters
NUMBER = rf"(?:{INDEX}|-?[0-9]*(?:{TEMPLATE}[0-9]*)+)"
STEP = rf"(?:(?![0]+(?![0-9]))(?!-){INDEX}|{TEMPLATE})"
PART = rf"\s*(?:{NUMBER}|{NUMBER}?\s*:\s*{NUMBER}?(?:\s*:\s*{STEP}?)?)\s*"
WORD = rf"(?:[A-Za-z_0-9]\w*|\*|\w*(?:{TEMPLATE}\w*)+)"
NAME = rf"{WORD}(?:\.{WORD})*"
PLAIN_NAME = NAME.replace(r"|\*", "")  # of one stack
PREFIX = rf"(?:\s*(?:{'|'.join(MODELS)}|{TEMPLATE})\s*/)?"
SUBSCRIPT = rf"\[{PART}(?:,{PART})*\]"
LAYERS_PATTERN = rf"^{PREFIX}{NAME}(?:{SUBSCRIPT})?\s*$"
COMPONENT_PATTERN = rf"^{PREFIX}{NAME}(?:{SUBSCRIPT}\.{NAME})?\s*$"
LAYERS_EXAMPLE = "transformer_blocks[4:15]"
COMPONENT_EXAMPLE = "transformer_blocks[2:5].attn1"
GROUP_PATTERN = rf"^(?:{PREFIX}{NAME}(?:{SUBSCRIPT}(?:\.{NAME})?)?\s*|.*\.safetensors#.+)$"
WHOLE_TEMPLATE = rf"^{TEMPLATE}$"


def json_schema() -> dict[str, Any]:
    """The schema of a spec, as plain data for `json.dumps`."""
    return {
        "$schema": SCHEMA_DIALECT,
        "title": TITLE,
        "type": "object",
        "required": list(REQUIRED_KEYS),
        "additionalProperties": False,
        "properties": {name: {"description": meaning, **_beside(_key(name))} for name, meaning in KEYS.items()},
        "definitions": {
            "operations": _operations(),
            "operation": _operation(),
            "layers": _selection(LAYERS_PATTERN, LAYERS_EXAMPLE, "layers"),
            "components": _selection(COMPONENT_PATTERN, COMPONENT_EXAMPLE, "components"),
            "members": _selection(GROUP_PATTERN, LAYERS_EXAMPLE, "members"),
        },
    }


def _key(name: str) -> dict[str, Any]:
    match name:
        case "surgery":
            return {"const": VERSION, "default": VERSION}
        case "groups":
            names = {"pattern": r"^[A-Za-z_]\w*$"}
            return {"type": "object", "propertyNames": names, "additionalProperties": _reference("members")}
        case "vary":
            return {"type": "object", "minProperties": 1, "additionalProperties": _variable()}
        case "operations":
            return _reference("operations")
        case _:
            return {"type": "string", "pattern": r"\S"}


def _variable() -> dict[str, Any]:
    scalar = {"type": ["number", "string"]}
    return {
        "description": "A list, range(0, 13), a selector (its layers), or cases: lists of operations by name.",
        "oneOf": [
            {"type": "array", "minItems": 1, "items": scalar},
            {"type": "string", "pattern": rf"^\s*{RANGE.pattern}\s*$|\["},
            {"type": "object", "minProperties": 1, "additionalProperties": _reference("operations")},
        ],
    }


def _operations() -> dict[str, Any]:
    name = {"type": "string", "pattern": r"\S", "description": "The name of a variable that holds cases."}
    return {"type": "array", "items": {"if": {"type": "string"}, "then": name, "else": _reference("operation")}}


def _operation() -> dict[str, Any]:
    """One object of all operations, so that an editor offers each with its text; exactly one of them is required."""
    properties = {name: _form(form) for name, form in OPERATIONS.items()}
    properties |= {name: _field(field) for name, field in BESIDE.items()}
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "oneOf": [{"required": [name]} for name in OPERATIONS],
    }


def _form(form: Form) -> dict[str, Any]:
    mapping = _mapping(form.fields)
    told = {"description": form.meaning, "markdownDescription": f"{form.meaning}\n\nExample: `{form.example}`"}
    if form.bare is None:
        return {**told, **mapping}
    return {**told, "anyOf": [_type(form.fields[form.bare]), mapping]}


def _mapping(fields: Mapping[str, Field]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "title": "fields",
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _field(field) for name, field in fields.items()},
    }
    required = [name for name, field in fields.items() if field.required]
    if required:
        found["required"] = required
    if {"times", "using"} <= set(fields):
        found["oneOf"] = [{"required": ["times"]}, {"required": ["using"]}]
    return found


def _field(field: Field) -> dict[str, Any]:
    told: dict[str, Any] = {"description": field.meaning}
    if field.default is not None:
        told["default"] = field.default
    return {**told, **_beside(_type(field))}


def _type(field: Field) -> dict[str, Any]:
    integer: dict[str, Any] = {"type": "integer"}
    match field.kind:
        case "layers":
            return _reference("layers")
        case "component":
            return _reference("components")
        case "count":
            bounds = {"minimum": field.minimum} | ({} if field.maximum is None else {"maximum": field.maximum})
            return _or_template({**integer, **bounds})
        case "number":
            return _or_template({"type": "number", "exclusiveMinimum": -1e30, "exclusiveMaximum": 1e30})
        case "choice":
            return {"anyOf": [{"enum": list(field.choices)}, {"type": "string", "pattern": WHOLE_TEMPLATE}]}
        case "using":
            index = {**integer, "minimum": -MAX_INDEX, "maximum": MAX_INDEX}
            return {"anyOf": [{"enum": ["center"]}, *_or_template(index)["anyOf"]]}
        case "stack":
            return {"type": "string", "pattern": rf"^{PREFIX}{PLAIN_NAME}\s*$"}
        case "indices":
            return {"type": "array", "minItems": 1, "items": _or_template(integer)}
        case "order":
            layers = {"type": "string", "pattern": rf"^\s*(?:{NUMBER}?\s*:\s*{NUMBER}?(?:\s*:)?|{TEMPLATE})\s*$"}
            return {"type": "array", "minItems": 1, "items": {"anyOf": [integer, layers, _mapping(ORDER_GROUP)]}}
        case "when":
            return {**_mapping(WHEN), "minProperties": 1}
        case "window":
            share = _or_template({"type": "number", "minimum": 0, "maximum": 1})
            return {"type": "array", "minItems": 2, "maxItems": 2, "items": share}
        case kind:
            raise AssertionError(f"{kind} is no kind of field")


def _or_template(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "string", "pattern": WHOLE_TEMPLATE}]}


def _selection(pattern: str, example: str, itself: str) -> dict[str, Any]:
    """A selector, or a list of such; the list may hold lists, as aliases of lists make them."""
    message = f"write a stack and a Python subscript with a positive step, or a group, like {example}"
    text = {"type": "string", "pattern": pattern, "patternErrorMessage": message}
    return {"anyOf": [text, {"type": "array", "minItems": 1, "items": _reference(itself)}]}


def _beside(schema: dict[str, Any]) -> dict[str, Any]:
    """The same schema, fit to stand beside a description: what stands beside $ref is ignored in draft-07."""
    return {"allOf": [schema]} if "$ref" in schema else schema


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/definitions/{name}"}
