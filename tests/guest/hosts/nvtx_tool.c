/* Another tool's NVTX injection: replaces some functions, and says on stderr what it sees. */
#include "nvtx.h"
#include <stdio.h>

static int push(const char *name) { return fprintf(stderr, "tool: push %s\n", name), 100; }

static int push_in_second(const char *name) { return fprintf(stderr, "tool: push %s in the second library\n", name), 100; }

static int pop(void) { return fprintf(stderr, "tool: pop\n"), 100; }

static uint64_t start(const char *name) {
    static uint64_t id = 70;
    fprintf(stderr, "tool: start %s\n", name);
    return ++id;
}

static void end(uint64_t id) { fprintf(stderr, "tool: end %lu\n", (unsigned long)id); }

static void *create_domain(const char *name) { return fprintf(stderr, "tool: domain %s\n", name), (void *)0xd0; }

static int push_in(void *domain, attributes *event) {
    return fprintf(stderr, "tool: push %s in %p\n", (const char *)event->message.registered + 1, domain), 100;
}

static void *register_string(void *domain, const char *text) {
    char *kept = malloc(strlen(text) + 2);
    *kept = '!';
    return strcpy(kept + 1, text) - 1;
}

int InitializeInjectionNvtx2(const callbacks *(*export_table)(uint32_t)) {
    static int libraries;
    function **core, **core2;
    unsigned length;
    int is_first = libraries++ == 0;
    if (!is_first && getenv("TOOL_WANTS_ONE"))
        return 0;
    export_table(1)->module(CORE, &core, &length);
    export_table(1)->module(CORE2, &core2, &length);
    *core[9] = is_first ? (function)push : (function)push_in_second;
    *core[11] = (function)pop;
    *core[5] = (function)start;
    *core[7] = (function)end;
    *core2[12] = (function)create_domain;
    *core2[10] = (function)register_string;
    *core2[4] = (function)push_in;
    fprintf(stderr, "tool: here\n");
    return getenv("TOOL_FAILS") == NULL;
}

int InitializeInjectionNvtxExtension(void *module) { return module != NULL; }
