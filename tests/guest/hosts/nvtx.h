/* NVTX's side of its protocol, written from its documentation: a library with NVTX has a table of functions, loads the
   injection that NVTX_INJECTION64_PATH names at its first use, and lets it replace them. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

typedef void (*function)(void);

enum { CORE = 1, CORE2 = 5, FUNCTIONS = 16 };

typedef struct {
    uint16_t version, size;
    uint32_t category;
    int32_t color_type;
    uint32_t color;
    int32_t payload_type, reserved;
    union {
        uint64_t u64;
        int64_t i64;
        double f64;
        uint32_t u32;
        int32_t i32;
        float f32;
    } payload;
    int32_t message_type;
    union {
        const char *ascii;
        const wchar_t *unicode;
        void *registered;
    } message;
} attributes;

typedef struct {
    size_t size;
    int (*module)(unsigned, function ***, unsigned *);
} callbacks;

/* A library with NVTX of its own. */
typedef struct {
    function core[FUNCTIONS], core2[FUNCTIONS];
    function *core_places[FUNCTIONS + 1], *core2_places[FUNCTIONS + 1];
} library;

static library libraries[2];
static library *loading;

static void not_initialized(void) { abort(); }

static int module(unsigned id, function ***places, unsigned *length) {
    if (id != CORE && id != CORE2)
        return 0;
    *places = id == CORE ? loading->core_places : loading->core2_places;
    *length = FUNCTIONS;
    return 1;
}

static const void *export_table(uint32_t id) {
    static callbacks table = {sizeof table, module};
    return id == 1 ? &table : NULL;
}

/* What the first call of any NVTX function does; 0 where no injection wants it. */
static int nvtx_initialize(library *of) {
    loading = of;
    for (int i = 1; i < FUNCTIONS; i++) {
        of->core[i] = of->core2[i] = not_initialized;
        of->core_places[i] = &of->core[i];
        of->core2_places[i] = &of->core2[i];
    }
    const char *path = getenv("NVTX_INJECTION64_PATH");
    void *injection = path ? dlopen(path, RTLD_LAZY) : NULL;
    int (*initialize)(const void *(*)(uint32_t)) = injection ? dlsym(injection, "InitializeInjectionNvtx2") : NULL;
    int wanted = initialize && initialize(export_table);
    for (int i = 1; i < FUNCTIONS; i++) {
        if (!wanted || of->core[i] == not_initialized)
            of->core[i] = NULL;
        if (!wanted || of->core2[i] == not_initialized)
            of->core2[i] = NULL;
    }
    return wanted;
}

/* As NVTX's functions do: a function that is not there is not called. */
#define CALL(table, id, type, otherwise, ...) ((table)[id] ? ((type)(table)[id])(__VA_ARGS__) : (otherwise))
#define DO(table, id, type, ...)                                                                                       \
    do {                                                                                                               \
        if ((table)[id])                                                                                               \
            ((type)(table)[id])(__VA_ARGS__);                                                                          \
    } while (0)
