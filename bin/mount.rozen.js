#!/usr/bin/env node
import '../bundle/cli/mount-helper-main.js';
