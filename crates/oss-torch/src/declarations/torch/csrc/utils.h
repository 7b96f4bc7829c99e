// c10d's FakeProcessGroup.hpp includes this libtorch header, which needs Python's headers, and uses nothing from it.
#pragma once
