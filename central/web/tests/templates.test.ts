import { describe, expect, it } from "vitest";
import {
  editable,
  fileName,
  inlined,
  nextVersion,
  placeOfPath,
  schemaWord,
  templateOf,
  versionOf,
} from "../src/lib/templates";

describe("templateOf", () => {
  const model = {
    "@id": "dtmi:a:press;1",
    "@type": "Interface",
    displayName: { de: "Presse" },
    contents: [],
  };

  it("takes a template, without its etag", () => {
    const read = templateOf(JSON.stringify({ "@id": "dtmi:a:t;1", etag: '"3"', capabilityModel: model }));
    expect(read).toMatchObject({ id: "dtmi:a:t;1", wrong: null });
    expect(read.wrong === null && "etag" in read.document).toBe(false);
  });

  it("makes a template of an interface, under its id and its name", () => {
    const read = templateOf(JSON.stringify(model));
    expect(read).toMatchObject({
      id: "dtmi:a:press;1",
      document: { displayName: "Presse", capabilityModel: model },
    });
  });

  it("says what is no template", () => {
    for (const text of ["{", "3", "[]", '{"a": 1}', '{"capabilityModel": {}}'])
      expect(templateOf(text).wrong).toBeTypeOf("string");
  });
});

describe("inlined", () => {
  const base = { "@id": "dtmi:a:base;1", "@type": "Interface", contents: [] };
  const motor = { "@id": "dtmi:a:motor;1", "@type": "Interface", extends: "dtmi:a:base;1", contents: [] };
  const component = (name: string) => ({ "@type": "Component", name, schema: "dtmi:a:motor;1" });
  const press = {
    "@id": "dtmi:a:press;1",
    "@type": "Interface",
    extends: ["dtmi:a:base;1", "dtmi:b:elsewhere;1"],
    contents: [component("left"), component("right")],
  };

  it("puts each interface where it is first referred to, and leaves the rest as references", () => {
    expect(inlined([base, motor, press])).toEqual({
      ...press,
      extends: [base, "dtmi:b:elsewhere;1"],
      contents: [
        { ...component("left"), schema: { ...motor, extends: "dtmi:a:base;1" } },
        component("right"),
      ],
    });
  });

  it("ends when interfaces refer to each other in a circle", () => {
    const one = { ...base, extends: "dtmi:a:two;1" };
    const two = { "@id": "dtmi:a:two;1", "@type": "Interface", extends: "dtmi:a:base;1" };
    expect(inlined([one, two])).toMatchObject({ extends: { extends: "dtmi:a:base;1" } });
  });
});

describe("placeOfPath", () => {
  const text = JSON.stringify(
    { a: { "con[tents": 1, contents: [{ name: 'x"}' }, { name: "y", schema: "nope" }] } },
    null,
    2,
  );
  const at = (path: string) => {
    const place = placeOfPath(text, path);
    return place && text.slice(place.from, place.to);
  };

  it("finds a value by its path, past strings that look like structure", () => {
    expect(at("a.contents[1].schema")).toBe('"nope"');
    expect(at("a.contents[0].name")).toBe('"x\\"}"');
  });

  it("finds what is around a value that is not there, and marks one line of it", () => {
    expect(at("a.contents[1].unit")).toBe("{");
    expect(at("a.contents[9]")).toBe("[");
  });

  it("does not throw on what is no JSON", () => {
    for (let end = 0; end < text.length; end += 1) placeOfPath(text.slice(0, end), "a.contents[1].schema");
  });
});

describe("versions", () => {
  it("are behind the semicolon, and the next one is behind all", () => {
    expect(versionOf("dtmi:a:press;12")).toBe(12);
    expect(versionOf("press")).toBe(0);
    expect(nextVersion("dtmi:a:press;2", ["dtmi:a:press;2", "dtmi:a:press;9"])).toBe("dtmi:a:press;10");
  });
});

describe("words", () => {
  it("say what a schema is", () => {
    const number = { kind: "double" };
    expect(schemaWord({ kind: "array", element: number })).toBe("array of double");
    expect(schemaWord({ kind: "enum", values: [{ name: "off", displayName: "Off", value: 0 }] })).toBe(
      "enum: Off",
    );
    expect(schemaWord({ kind: "object", fields: [{ name: "low", displayName: null, schema: number }] })).toBe(
      "object: low",
    );
  });

  it("name the file of a template, and what is edited of it", () => {
    expect(fileName("dtmi:plant:press;1")).toBe("plant-press-1.json");
    const template = { "@id": "dtmi:a:t;1", etag: '"1"', displayName: "T" };
    expect(JSON.parse(editable(template as never))).toEqual({ "@id": "dtmi:a:t;1", displayName: "T" });
  });
});
