// Parses JSON (RFC 8259) by recursive descent: branches on single characters.
#include "bench.h"

#include <stdio.h>
#include <string.h>

enum { ROOM = 1 << 16, RECORDS = 300 };

static char document[ROOM];
static const char *at;
static uint64_t sum;

static void prepare(void) {
    char *out = document;
    out += sprintf(out, "[");
    for (int i = 0; i < RECORDS; i++) {
        out += sprintf(out,
                       "%s\n  {\"id\": %d, \"name\": \"crane \\\"%x\\\" \\u00e9\", \"weight\": %d.%02d,\n"
                       "   \"migrates\": %s, \"rings\": [%d, -%d, %de2], \"mate\": null}",
                       i ? "," : "", i, i * 2654435761u, i % 7, i % 100, i % 3 ? "true" : "false",
                       i * 3, i * 5, i % 10);
    }
    sprintf(out, "\n]");
}

static void skip_space(void) {
    while (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r')
        at++;
}

static void expect(const char *text) {
    size_t length = strlen(text);
    check(strncmp(at, text, length) == 0, "parsing JSON");
    at += length;
}

static void parse_string(void) {
    uint32_t hash = 0;
    for (expect("\""); *at != '"'; at++) {
        if (*at == '\\')
            at++;
        hash = hash * 31 + (uint8_t)*at;
    }
    at++;
    sum = mix(sum, hash);
}

static void parse_number(void) {
    int negative = *at == '-', digits_behind_point = 0, exponent = 0;
    int64_t value = 0;
    at += negative;
    for (; *at >= '0' && *at <= '9'; at++)
        value = value * 10 + (*at - '0');
    if (*at == '.')
        for (at++; *at >= '0' && *at <= '9'; at++, digits_behind_point++)
            value = value * 10 + (*at - '0');
    if (*at == 'e')
        for (at++; *at >= '0' && *at <= '9'; at++)
            exponent = exponent * 10 + (*at - '0');
    sum = mix(sum, negative ? -value : value);
    sum = mix(sum, exponent - digits_behind_point);
}

static void parse_value(void);

// What stands between `open` and `close`, with commas.
static void parse_list(char close, void (*parse_item)(void)) {
    uint32_t items = 0;
    at++;
    skip_space();
    while (*at != close) {
        parse_item();
        items++;
        skip_space();
        if (*at == ',')
            at++;
        skip_space();
    }
    at++;
    sum = mix(sum, items);
}

static void parse_member(void) {
    parse_string();
    skip_space();
    expect(":");
    parse_value();
}

static void parse_value(void) {
    skip_space();
    switch (*at) {
    case '{': parse_list('}', parse_member); break;
    case '[': parse_list(']', parse_value); break;
    case '"': parse_string(); break;
    case 't': expect("true"); break;
    case 'f': expect("false"); break;
    case 'n': expect("null"); break;
    default: parse_number();
    }
}

static uint64_t run(uint64_t count) {
    sum = 0;
    while (count--) {
        at = document;
        parse_value();
    }
    return sum;
}

WORKLOAD(json, "json", prepare, run);
