/* Does what its arguments say, word by word, and speaks to its guest's socket as a client in the process would.
     lN     launches N kernels            s        waits for them
     +NAME  opens a region                -K       closes window K
     =NAME  opens a window, not nested    -        closes every window
     P, p   cudaProfilerStart and Stop    tN       sleeps N ms
     ~      closes the window that was opened last by + or =
     f      forks, before the rest: both do it
     TN     begins a thread that does P, l3, p N times; the end waits for it
     {...   sends this text
   Prints a line a message sent: the word, `ok` or `no`, and the reply. */
#include "cuda.h"
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int connect_to_guest(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/%d.sock", getenv("COLONEL_RUNTIME"), getpid());
    for (int tries = 0; tries < 1000; tries++) {
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
            return fd;
        close(fd);
        usleep(2000);
    }
    fprintf(stderr, "no guest at %s\n", address.sun_path);
    exit(98);
}

static void read_all(int fd, char *to, unsigned length) {
    for (ssize_t got; length > 0; to += got, length -= (unsigned)got)
        if ((got = read(fd, to, length)) <= 0)
            exit(97);
}

static int newest;

static void ask(const char *word, const char *text) {
    static char reply[65537];
    unsigned length = (unsigned)strlen(text);
    int fd = connect_to_guest();
    if (write(fd, &length, 4) != 4 || write(fd, text, length) != (ssize_t)length)
        exit(96);
    read_all(fd, (char *)&length, 4);
    read_all(fd, reply, length);
    reply[length] = 0;
    close(fd);
    printf("%s %s %s\n", word, strstr(reply, "\"ok\":true") ? "ok" : "no", reply);
    const char *window = strstr(reply, "\"window\":");
    if ((*word == '+' || *word == '=') && window)
        newest = atoi(window + strlen("\"window\":"));
}

static void *profile(void *count) {
    for (long i = 0; i < (long)count; i++) {
        start();
        launch(3);
        stop();
    }
    return NULL;
}

static pthread_t thread;
static int threads;

static void act(const char *word) {
    char text[256];
    switch (*word) {
    case 'l': launch(atoi(word + 1)); break;
    case 's': synchronize(); break;
    case 't': usleep((unsigned)atoi(word + 1) * 1000); break;
    case 'P': start(); break;
    case 'p': stop(); break;
    case '{': ask("{", word); break;
    case '+':
    case '=':
        snprintf(text, sizeof text, "{\"version\":1,\"op\":\"start\",\"name\":\"%s\"%s}", word + 1,
                 *word == '+' ? ",\"nested\":true" : "");
        ask(word, text);
        break;
    case 'T':
        threads = pthread_create(&thread, NULL, profile, (void *)atol(word + 1)) == 0;
        break;
    case '~':
        snprintf(text, sizeof text, "{\"version\":1,\"op\":\"stop\",\"window\":%d}", newest);
        ask(word, text);
        break;
    case '-':
        if (word[1])
            snprintf(text, sizeof text, "{\"version\":1,\"op\":\"stop\",\"window\":%s}", word + 1);
        else
            strcpy(text, "{\"version\":1,\"op\":\"stop\"}");
        ask(word, text);
        break;
    default: exit(95);
    }
}

int main(int count, char **words) {
    int child = 0, first = 1;
    if (count > 1 && strcmp(words[1], "f") == 0) {
        first = 2;
        child = fork();
    }
    register_kernel();
    check("cudaFree", cudaFree(NULL));
    for (int i = first; i < count; i++)
        act(words[i]);
    if (threads)
        pthread_join(thread, NULL);
    synchronize();
    fflush(stdout);
    int status = 0;
    if (child > 0)
        waitpid(child, &status, 0);
    return status != 0;
}
