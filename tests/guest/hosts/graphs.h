/* CUDA graphs, as words of a program tell it. G, E: digits, the number of a graph or of an executable.
     gb     begins a capture              gtG    begins one into graph G       geG    ends it as graph G
     glN    launches N kernels on the capturing stream     gm     fills memory there
     gf     breaks the capture, and ends it without a graph
     gnG    makes graph G without a capture    gcGH  adds graph H to G as a child   gkGH  makes graph G as a copy of H
     giGE   instantiates G as E, gwGE with flags, gpGE with parameters, gdGE by the driver
     guGE   updates E by G                grE    launches E                    gsE    launches it and waits
     gxE    destroys executable E         gyG    destroys graph G
     gq     captures on this thread's own default stream from here on    go  destroys the capturing stream
     gR     resets the device               gL     lets go of its context, which others hold, too
     gDE    does so while a second thread destroys executable E (COLONEL_SIM_HOLD_RELEASE is `held`)
     gX     makes a context and destroys it gA     does so with a graph in it, as graph and executable 9
     gzG    makes, launches and destroys executables of G on two threads, while windows open and close */

typedef struct {
    unsigned long long flags;
    void *upload, *error_node;
    int result;
} instantiate_parameters;

#include <pthread.h>
#include <unistd.h>

int cudaStreamCreate(void **);
int cudaStreamDestroy(void *);
int cudaDeviceReset(void);
int cudaMalloc(void **, size_t);
int cudaMemsetAsync(void *, int, size_t, void *);
int cudaStreamBeginCapture(void *, int);
int cudaStreamBeginCaptureToGraph(void *, void *, const void *, const void *, size_t, int);
int cudaStreamEndCapture(void *, void **);
int cudaGraphCreate(void **, unsigned);
int cudaGraphClone(void **, void *);
int cudaGraphAddChildGraphNode(void **, void *, const void *, size_t, void *);
int cudaGraphInstantiate(void **, void *, unsigned long long);
int cudaGraphInstantiateWithFlags(void **, void *, unsigned long long);
int cudaGraphInstantiateWithParams(void **, void *, instantiate_parameters *);
int cudaGraphExecUpdate(void *, void *, void *);
int cudaGraphLaunch(void *, void *);
int cudaGraphExecDestroy(void *);
int cudaGraphDestroy(void *);

enum { RELAXED = 2 };

static void *capturing_stream, *graphs[10], *execs[10];

/* cudaStreamPerThread, or none. */
static _Thread_local void *own_stream;

static void *stream(void) {
    if (own_stream)
        return own_stream;
    if (!capturing_stream)
        check("cudaStreamCreate", cudaStreamCreate(&capturing_stream));
    return capturing_stream;
}

static void fill(void) {
    static void *memory;
    if (!memory)
        check("cudaMalloc", cudaMalloc(&memory, 64));
    check("cudaMemsetAsync", cudaMemsetAsync(memory, 1, 64, stream()));
}

/* As a program does that links the driver: by name, so that a preloaded library may take the call. */
static void *of_driver(const char *name) {
    dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
    return dlsym(RTLD_DEFAULT, name);
}

static int instantiate_by_driver(void **exec, void *graph) {
    int (*call)(void **, void *, unsigned long long) = of_driver("cuGraphInstantiateWithFlags");
    return call(exec, graph, 0);
}

static void break_capture(void) {
    void *graph = graphs;
    int waits = cudaStreamSynchronize(stream()), ends = cudaStreamEndCapture(stream(), &graph);
    printf("gf %d %d %s\n", waits, ends, graph ? "a graph" : "none");
}

static void graph_word(const char *word);

static int pass_context(int with_graph) {
    void *context, *before = capturing_stream;
    check("cuCtxCreate", ((int (*)(void **, unsigned, int))of_driver("cuCtxCreate_v2"))(&context, 0, 0));
    if (with_graph) {
        capturing_stream = NULL;
        graph_word("gb");
        graph_word("gl1");
        graph_word("ge9");
        graph_word("gi99");
        capturing_stream = before;
    }
    return ((int (*)(void *))of_driver("cuCtxDestroy_v2"))(context);
}

static void *destroy_meanwhile(void *exec) {
    while (access("held", F_OK) != 0)
        usleep(1000);
    check("cudaGraphExecDestroy", cudaGraphExecDestroy(exec));
    unlink("held");
    return NULL;
}

static int release(void) { return ((int (*)(int))of_driver("cuDevicePrimaryCtxRelease_v2"))(0); }

static int release_while_destroying(void *exec) {
    pthread_t thread;
    pthread_create(&thread, NULL, destroy_meanwhile, exec);
    int status = release();
    pthread_join(thread, NULL);
    return status;
}

static void *make_and_destroy(void *graph) {
    for (int i = 0; i < 3000; i++) {
        void *exec, *updated;
        check("cudaGraphInstantiate", cudaGraphInstantiate(&exec, graph, 0));
        check("cudaGraphInstantiate", cudaGraphInstantiate(&updated, graph, 0));
        check("cudaGraphExecUpdate", cudaGraphExecUpdate(updated, graph, NULL));
        if (i % 10 == 0)
            check("cudaGraphLaunch", cudaGraphLaunch(exec, NULL));
        check("cudaGraphExecDestroy", cudaGraphExecDestroy(exec));
        check("cudaGraphExecDestroy", cudaGraphExecDestroy(updated));
    }
    return NULL;
}

static void race(void *graph) {
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        pthread_create(threads + i, NULL, make_and_destroy, graph);
    for (int i = 0; i < 100; i++) {
        start();
        stop();
    }
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
}

static void graph_word(const char *word) {
    void **first = graphs + (word[2] - '0') % 10, **second = graphs + (word[2] ? word[3] - '0' : 0) % 10;
    void **exec = execs + (word[2] ? word[3] - '0' : 0) % 10, **only = execs + (word[2] - '0') % 10, *node;
    instantiate_parameters parameters = {0};
    int status = 0;
    switch (word[1]) {
    case 'b': status = cudaStreamBeginCapture(stream(), RELAXED); break;
    case 't': status = cudaStreamBeginCaptureToGraph(stream(), *first, NULL, NULL, 0, RELAXED); break;
    case 'e': status = cudaStreamEndCapture(stream(), first); break;
    case 'l': launch_on(stream(), atoi(word + 2)); break;
    case 'm': fill(); break;
    case 'f': break_capture(); break;
    case 'n': status = cudaGraphCreate(first, 0); break;
    case 'c': status = cudaGraphAddChildGraphNode(&node, *first, NULL, 0, *second); break;
    case 'k': status = cudaGraphClone(first, *second); break;
    case 'i': status = cudaGraphInstantiate(exec, *first, 0); break;
    case 'w': status = cudaGraphInstantiateWithFlags(exec, *first, 0); break;
    case 'p': status = cudaGraphInstantiateWithParams(exec, *first, &parameters); break;
    case 'd': status = instantiate_by_driver(exec, *first); break;
    case 'u': status = cudaGraphExecUpdate(*exec, *first, NULL); break;
    case 'r': status = cudaGraphLaunch(*only, stream()); break;
    case 's':
        status = cudaGraphLaunch(*only, stream());
        check("cudaStreamSynchronize", cudaStreamSynchronize(stream()));
        break;
    case 'x': status = cudaGraphExecDestroy(*only); break;
    case 'y': status = cudaGraphDestroy(*first); break;
    case 'R':
        status = cudaDeviceReset();
        capturing_stream = NULL;
        break;
    case 'L': status = release(); break;
    case 'D': status = release_while_destroying(*only); break;
    case 'X':
    case 'A': status = pass_context(word[1] == 'A'); break;
    case 'q': own_stream = (void *)2; break;
    case 'o':
        status = cudaStreamDestroy(capturing_stream);
        capturing_stream = NULL;
        break;
    case 'z': race(*first); break;
    default: exit(96);
    }
    check(word, status);
}
