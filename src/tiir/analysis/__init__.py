"""From ranks to reasons: what each query retrieved, how two models differ, and why queries fail."""
