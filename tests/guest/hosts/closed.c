/* Closes its standard streams before it uses CUDA, as a daemon does, and goes on writing to their numbers. */
#include "cuda.h"
#include <string.h>
#include <unistd.h>

int main(void) {
    close(0);
    close(1);
    close(2);
    register_kernel();
    char garbage[4096];
    memset(garbage, 'x', sizeof garbage);
    for (int step = 0; step < 300; step++) {
        launch(10);
        synchronize();
        for (int number = 0; number < 3; number++)
            if (write(number, garbage, sizeof garbage) >= 0)
                return 97;
        usleep(5000);
    }
    return 23;
}
