/* Sets an interpreter apart: no interpreter has a call for it, but each can load a shared object. */
#include "apart.h"

__attribute__((constructor)) static void loaded(void)
{
	set_apart();
}
