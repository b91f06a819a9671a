/* Uses CUDA, then forks: a child that just exits, one that calls the profiler all the same, and one that becomes a
   shell which lists its own threads and files. */
#include "cuda.h"
#include <sys/wait.h>
#include <unistd.h>

static int end_of(pid_t child) {
    int status;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(void) {
    register_kernel();
    launch(1);
    start();
    launch(10);
    synchronize();
    fflush(stdout);

    pid_t child = fork();
    if (child == 0)
        exit(11);
    printf("exited with %d\n", end_of(child));
    fflush(stdout);

    child = fork();
    if (child == 0) {
        cudaProfilerStop();
        cudaProfilerStart();
        exit(12);
    }
    printf("exited with %d\n", end_of(child));
    fflush(stdout);

    child = fork();
    if (child == 0) {
        execl("/bin/sh", "sh", "-c", "cat /proc/$$/task/*/comm; readlink /proc/$$/fd/*; exit 13", NULL);
        _exit(96);
    }
    printf("exited with %d\n", end_of(child));

    launch(10);
    synchronize();
    stop();
    return 0;
}
