import { driverContract } from '../../contract/driver.ts';
import { mountObstacle } from './mounted.ts';

driverContract(
  'kernel',
  {
    byteNames: true,
    wideInodes: true,
    exactTimes: true,
    birthTimes: true,
    holes: true,
    acls: true,
    handles: true,
  },
  mountObstacle(),
);
